#!/usr/bin/env node
// A request, in Node: CGI/1.1 without a library. Header fields, an empty line, the body.
"use strict";

const escape = (text) => text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);

async function main() {
  switch (process.env.REQUEST_METHOD) {
    case "GET":
    case "HEAD": {
      const name = new URLSearchParams(process.env.QUERY_STRING).get("name") ?? "world";
      process.stdout.write("Content-Type: text/html; charset=utf-8\n\n");
      process.stdout.write(`<p>Hello, ${escape(name)}, from Node.</p>\n`);
      break;
    }
    case "POST":
      process.stdout.write("Status: 201\nContent-Type: application/octet-stream\n\n");
      for await (const chunk of process.stdin) process.stdout.write(chunk);
      break;
    default:
      process.stdout.write("Status: 405\nAllow: GET, HEAD, POST\n");
      process.stdout.write("Content-Type: text/plain; charset=utf-8\n\nNot with this method.\n");
  }
}

main();
