#!/usr/bin/env node
// A job, in Node: writes the SHA-256 of an uploaded file beside it.
//
// The message's args[0] is on stdin, as JSON: {"file": "picture.jpg"}. What the exit status says: 0 it
// is done; 75 (EX_TEMPFAIL) try it again later; anything else it has failed, as after an exception.
// Jobs run at least once: this one does no harm when it runs twice.
"use strict";

const crypto = require("crypto");
const fs = require("fs/promises");

async function main() {
  const chunks = [];
  for await (const chunk of process.stdin) chunks.push(chunk);
  const { file } = JSON.parse(Buffer.concat(chunks));
  if (typeof file !== "string" || !file || file.includes("/")) {
    console.error(`${JSON.stringify(file)} is not the name of a file`);
    return 65; // EX_DATAERR
  }
  const path = `${process.env.UPLOADS}/${file}`;
  let content;
  try {
    content = await fs.readFile(path);
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    console.error(`${file} is not uploaded yet`);
    return 75;
  }
  const digest = crypto.createHash("sha256").update(content).digest("hex");
  // Nobody sees half a file.
  const half = `${path}.sha256.${process.pid}`;
  await fs.writeFile(half, `${digest}\n`);
  await fs.rename(half, `${path}.sha256`);
  // The answer, where the message asks for one.
  console.log(digest);
  return 0;
}

// Not process.exit(): it would not wait for stdout.
main().then((status) => { process.exitCode = status; });
