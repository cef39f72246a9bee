#!/usr/bin/env php
<?php
// A job, in PHP: writes the SHA-256 of an uploaded file beside it.
//
//   checksum.php --id=ID
//
// The message's args[0] is on stdin, as JSON: {"id": 7, "file": "picture.jpg"}. What the exit status
// says: 0 it is done; 75 (EX_TEMPFAIL) try it again later; anything else it has failed, as after an
// exception (255). Jobs run at least once: this one does no harm when it runs twice.

function quit(int $status, string $why): never
{
    fwrite(STDERR, "job {$GLOBALS['id']}: $why\n");
    exit($status);
}

$id = getopt('', ['id:'])['id'];
$job = json_decode(stream_get_contents(STDIN), true, 512, JSON_THROW_ON_ERROR);
$file = $job['file'] ?? null;
if (!is_string($file) || $file === '' || str_contains($file, '/')) {
    quit(65, json_encode($file) . ' is not the name of a file');
}
$path = getenv('UPLOADS') . "/$file";
if (!file_exists($path)) {
    quit(75, "$file is not uploaded yet");
}
$digest = hash_file('sha256', $path);
// Nobody sees half a file.
$half = "$path.sha256." . getmypid();
if ($digest === false || !file_put_contents($half, "$digest\n") || !rename($half, "$path.sha256")) {
    quit(74, "$file cannot be read, or its checksum not written"); // EX_IOERR
}
// The answer, where the message asks for one.
echo "$digest\n";
