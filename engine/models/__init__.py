"""The protocol `Model`, where the files of models come from, and a model in this process."""
