#!/bin/sh
# A request, in POSIX shell.
#
# It comes as CGI/1.1 (RFC 3875): who asks for what in the environment, the body on stdin. What goes
# to stdout is the answer: header fields, an empty line, the body.
set -eu

case $REQUEST_METHOD in
GET | HEAD)
    printf 'Content-Type: text/plain; charset=utf-8\n\n'
    printf 'Hello from shell process %s. This is what it was given:\n\n' "$$"
    env | grep -E '^(HTTP|PATH_INFO|QUERY|QUEUERELAY|REMOTE|REQUEST|SCRIPT|SERVER)' | sort
    ;;
POST)
    printf 'Status: 201\nContent-Type: application/octet-stream\n\n'
    cat
    ;;
*)
    printf 'Status: 405\nAllow: GET, HEAD, POST\n'
    printf 'Content-Type: text/plain; charset=utf-8\n\nNot with this method.\n'
    ;;
esac
