#!/usr/bin/env bash
# Collects the packages and files for a machine without a network, and prints the commands to run there.
#
#   scripts/pack_offline.sh [--base MODEL.gguf] [--documents TEXTS.parquet] [--python 3.12] [--out .offline]
#
# The machine must have a recent PyTorch for CUDA and transformers, with their dependencies. This packs the newer
# transformers that we need, fastai, and the packages that come with fastai.
# The files are divided into folders OUT/1, OUT/2, ... of at most 55 MB. Copy them one after another, then run
# the printed commands. A folder OUT of an earlier call is replaced; a folder with other files is refused.
set -euo pipefail

# these replace the older transformers, tokenizers and huggingface_hub of such machines
packages=(
  transformers tokenizers huggingface_hub datasets "dill<0.4.2" "multiprocess<0.70.20"
  fastai fastcore fastdownload fastprogress fasttransform "plum-dispatch<2.10" beartype cloudpickle
  scikit-learn narwhals joblib threadpoolctl
  wikiextractor gensim smart-open wrapt rensa gguf
  starlette uvicorn h11 httpx2 httpcore2 truststore pytest-timeout pytest-xdist execnet
  python-fasthtml itsdangerous oauthlib python-multipart beautifulsoup4 soupsieve
)
limit=55000000  # 60 MB can be copied at once, the source tree included
python=3.12
out=.offline
base=""
documents=""
while (($#)); do
  case $1 in
    --base) base=$2 ;;
    --documents) documents=$2 ;;
    --python) python=$2 ;;
    --out) out=$2 ;;
    *) echo "usage: $0 [--base FILE] [--documents FILE] [--python 3.12] [--out FOLDER]" >&2; exit 2 ;;
  esac
  shift 2
done
for file in "$base" "$documents"; do
  if [[ -n $file && ! -f $file ]]; then echo "$file: no such file" >&2; exit 2; fi
done
marker=$out/.made-by-pack-offline
if [[ -e $out && ! -e $marker && -n $(ls -A "$out") ]]; then
  echo "$out holds other files; choose another --out, or remove it" >&2
  exit 2
fi
rm -rf "$out"
mkdir -p "$out/all"
touch "$marker"

platforms=()
for version in $(seq 17 39); do platforms+=(--platform "manylinux_2_${version}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux1_x86_64)
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version "$python" \
  --implementation cp "${platforms[@]}" --dest "$out/all" "${packages[@]}"
for file in "$base" "$documents"; do
  if [[ -n $file ]]; then
    split --bytes="$((limit * 9 / 10))" --numeric-suffixes=1 --suffix-length=2 "$file" "$out/all/$(basename "$file").part"
  fi
done

# Wheels fill the first folders, file parts the next; a folder is full at the limit.
go=1
size=0
mkdir "$out/$go"
for file in "$out"/all/*.whl "$out"/all/*.part*; do
  [[ -e $file ]] || continue
  bytes=$(stat --format=%s "$file")
  if ((size + bytes > limit && size > 0)); then
    echo "folder $go: $((size / 1000000)) MB"
    go=$((go + 1)) size=0
    mkdir "$out/$go"
  fi
  mv "$file" "$out/$go/"
  size=$((size + bytes))
done
echo "folder $go: $((size / 1000000)) MB"
rmdir "$out/all"

join=""
if [[ -n $base$documents ]]; then
  join='for first in *.part01; do cat "${first%.part01}".part* > "${first%.part01}"; done'
fi
cat <<END

On that machine, in the source tree, after every folder:
  mkdir -p /tmp/offline && cp -r $out/*/* /tmp/offline/
and after the last one:${join:+
  (cd /tmp/offline && $join)}
  python3 -m pip install --quiet --no-index --no-deps --no-compile --target /tmp/site /tmp/offline/*.whl
  export PYTHONPATH=/tmp/site:src
  python3 scripts/gpu_report.py --minutes 9 --out FOLDER${base:+ --base /tmp/offline/$(basename "$base")}${documents:+ --documents /tmp/offline/$(basename "$documents")}
END
