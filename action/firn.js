// What the scripts of the action share. Node's own modules only, so that there is nothing to build or to
// install, and the text that runs is the text that is read.
"use strict";

const crypto = require("node:crypto");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { spawnSync } = require("node:child_process");
const { Readable } = require("node:stream");
const { pipeline } = require("node:stream/promises");

const input = (name) => (process.env[`INPUT_${name.replace(/ /g, "_").toUpperCase()}`] || "").trim();
const lines = (name) => input(name).split("\n").map((line) => line.trim()).filter((line) => line);

function flag(name) {
  const text = input(name).toLowerCase();
  if (["", "false"].includes(text)) return false;
  if (text === "true") return true;
  throw new Error(`input ${name} is true or false, not ${text}`);
}

// The runner hands these to the script of the same action that runs after the job.
const keep = (name, value) => fs.appendFileSync(process.env.GITHUB_STATE, `${name}=${value}\n`);
const kept = (name) => process.env[`STATE_${name}`] || "";

const oneLine = (text) => String(text).replace(/%/g, "%25").replace(/\r/g, "%0D").replace(/\n/g, "%0A");
const warn = (text) => console.log(`::warning title=Firn::${oneLine(text)}`);

function fail(text) {
  console.log(`::error title=Firn::${oneLine(text)}`);
  process.exitCode = 1;
}

function storage() {
  const repository = (process.env.GITHUB_REPOSITORY || "").toLowerCase();
  if (input("storage")) return input("storage");
  if (repository) return `oci://ghcr.io/${repository}`;
  throw new Error("input storage is needed where GITHUB_REPOSITORY is not set");
}

async function sha256(file) {
  const hash = crypto.createHash("sha256");
  await pipeline(fs.createReadStream(file), hash);
  return hash.digest("hex");
}

async function download(url, file) {
  const answer = await fetch(url, { redirect: "follow", signal: AbortSignal.timeout(300_000) });
  if (!answer.ok || !answer.body) throw new Error(`${url}: HTTP ${answer.status}`);
  await pipeline(Readable.fromWeb(answer.body), fs.createWriteStream(file, { mode: 0o700 }));
}

function inPath() {
  const folders = (process.env.PATH || "").split(path.delimiter).filter((folder) => folder);
  return folders.map((folder) => path.join(folder, "firn")).find((file) => fs.existsSync(file));
}

// The binary to call. Its digest is checked before it is executable under its name; one that is there
// already is checked too, if a digest is given.
async function binary() {
  const wanted = input("firn-sha256").toLowerCase();
  const url = input("firn-url");
  let file = input("firn-binary") || (url ? "" : inPath());
  if (!file && !url) {
    throw new Error("there is no firn in PATH: firn-url with firn-sha256, or firn-binary, says where it is");
  }
  if (!file) {
    if (!wanted) throw new Error("firn-url needs firn-sha256: what is downloaded is checked before it runs");
    const folder = path.join(process.env.RUNNER_TEMP || os.tmpdir(), `firn-bin-${wanted.slice(0, 16)}`);
    file = path.join(folder, "firn");
    fs.mkdirSync(folder, { recursive: true });
    if (!fs.existsSync(file)) {
      const partial = `${file}.${process.pid}`;
      await download(url, partial);
      await check(partial, wanted);
      fs.chmodSync(partial, 0o755);
      fs.renameSync(partial, file);
    }
    if (process.env.GITHUB_PATH) fs.appendFileSync(process.env.GITHUB_PATH, `${folder}\n`);
  }
  if (wanted) await check(file, wanted);
  return path.resolve(file);
}

async function check(file, wanted) {
  const found = await sha256(file);
  if (found !== wanted) throw new Error(`${file} has the SHA-256 ${found}, not ${wanted}`);
}

// Runs firn to its end, its output to the log. Rights go by the environment, where nobody else sees them.
function firn(program, words) {
  const environment = { ...process.env };
  if (input("token")) environment.GITHUB_TOKEN = input("token");
  if (input("password")) environment.FIRN_DEST_CREDS = `${input("username") || "firn"}:${input("password")}`;
  const ended = spawnSync(program, words, { stdio: "inherit", env: environment });
  if (ended.error) throw ended.error;
  return ended.status === null ? 1 : ended.status;
}

function keyWords() {
  const words = [];
  if (input("key")) words.push("--key", input("key"));
  const files = lines("key-files");
  if (files.length) words.push("--key-files", ...files);
  return words;
}

const repeated = (option, values) => values.flatMap((value) => [`${option}=${value}`]);

// A name of its own for each use of the action in a job.
function newState() {
  const folder = process.env.RUNNER_TEMP || os.tmpdir();
  return path.join(folder, `firn-ci-${crypto.randomBytes(6).toString("hex")}`);
}

async function restore(state) {
  const program = await binary();
  const words = ["ci", "restore", "--storage", storage(), "--cache", input("cache") || "main"];
  words.push("--state", state, ...keyWords());
  words.push(...repeated("--restore-key", lines("restore-keys")), ...repeated("--path", lines("path")));
  for (const name of ["lookup-only", "fail-on-cache-miss", "fail-on-error"]) {
    if (flag(name)) words.push(`--${name}`);
  }
  const status = firn(program, words);
  if (status !== 0) throw new Error(`firn ci restore ended with ${status}`);
  return program;
}

function save(program, state, words) {
  const all = ["ci", "save", "--state", state, "--deadline", input("deadline") || "5m", ...words];
  all.push(...repeated("--upstream-key", lines("upstream-keys")));
  if (flag("fail-on-error")) all.push("--fail-on-error");
  return firn(program, all);
}

module.exports = {
  binary, check, fail, firn, flag, input, keep, kept, keyWords, lines, newState, repeated, restore, save, sha256, storage, warn,
};
