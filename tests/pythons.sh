# Runs the suite with every Python from 3.11 on in PATH or where pyenv and uv keep theirs, one of each version, each in
# an environment .venv-3.XX; fails if it fails with one.
set -u
tried= failed=
IFS=:
for folder in $PATH "$HOME"/.pyenv/versions/*/bin "$HOME"/.local/share/uv/python/*/bin; do
    for python in "$folder"/python3.[1-9][0-9]; do
        # A shim of pyenv may be there without its Python.
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        [ "${version#3.}" -ge 11 ] || continue
        case " $tried " in *" $version "*) continue ;; esac
        tried="$tried $version"
        echo "Python $version: $python"
        "${MAKE:-make}" test VENV=".venv-$version" PYTHON="$python" || failed="$failed $version"
    done
done
echo "Tried:${tried:- none}. Failed:${failed:- none}."
[ -n "$tried" ] && [ -z "$failed" ]
