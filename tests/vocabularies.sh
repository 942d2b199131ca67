# Takes llama.cpp's vocabulary files, each with texts and their tokens, out of llama-cpp-python's source package into
# .venv-llama/vocabularies, once, with the source that says how texts are cut, and builds a program that cuts by it.
set -eu
PYTHON=${PYTHON:-python3}
folder=$PWD/.venv-llama/vocabularies
program=$PWD/tests/engine/words.cpp
[ -e "$folder/llama-vocab.cpp" ] && exit 0

mkdir -p "$folder"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
$PYTHON -m pip --disable-pip-version-check download --quiet --no-deps --no-binary :all: llama-cpp-python || {
    echo "llama-cpp-python's source package cannot be fetched here: the tests of its vocabularies are skipped"
    exit 0
}
tar xzf llama_cpp_python-*.tar.gz
source=$(echo llama_cpp_python-*/vendor/llama.cpp)
"${CXX:-c++}" -O2 -std=c++17 -I "$source/src" "$program" "$source"/src/unicode*.cpp -o "$folder/words" ||
    echo "there is no C++ compiler here: the test of words is skipped"
cp "$source"/models/ggml-vocab-* "$source/src/llama-vocab.cpp" "$folder"
