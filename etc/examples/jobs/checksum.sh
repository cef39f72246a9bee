#!/bin/sh
# A job, in POSIX shell: writes the SHA-256 of an uploaded file beside it.
#
#   checksum.sh ID FILE
#
# What the exit status says: 0 it is done; 75 (EX_TEMPFAIL of sysexits) try it again later; anything
# else it has failed. Jobs run at least once: this one does no harm when it runs twice.
set -eu

id=$1 file=$2
case $file in
"" | */*)
    echo "job $id: '$file' is not the name of a file" >&2
    exit 65 # EX_DATAERR
    ;;
esac
path=${UPLOADS:?}/$file
if [ ! -e "$path" ]; then
    echo "job $id: $file is not uploaded yet" >&2
    exit 75
fi
digest=$(sha256sum <"$path")
digest=${digest%% *}
# Nobody sees half a file.
printf '%s\n' "$digest" >"$path.sha256.$$"
mv "$path.sha256.$$" "$path.sha256"
# The answer, where the message asks for one.
printf '%s\n' "$digest"
