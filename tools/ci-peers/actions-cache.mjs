// actions-cache.mjs save|restore KEY RESTORE-KEY PATH: the real client, one call, its seconds and the key as JSON.
import { pathToFileURL } from "node:url";
const { restoreCache, saveCache } = await import(pathToFileURL(process.env.ACTIONS_CACHE_MODULE).href);
const [what, key, restoreKey, path] = process.argv.slice(2);
const begin = process.hrtime.bigint();
const result = what === "save" ? await saveCache([path], key) : await restoreCache([path], key, [restoreKey]);
const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
process.stderr.write(`${JSON.stringify({ seconds, result: result ?? null })}\n`);
