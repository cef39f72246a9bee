#!/usr/bin/env php
<?php
// A job under the old contract (status = "stdout" in the pool): the exit status is 0, and what it
// prints says what became of it: 1 it is done, 2 try it again later, 3 it has failed.

$job = json_decode(stream_get_contents(STDIN), true);
if (!is_string($job['file'] ?? null)) {
    exit('3');
}
$path = getenv('UPLOADS') . '/' . basename($job['file']);
if (!file_exists($path)) {
    exit('2');
}
echo unlink($path) ? '1' : '2';
