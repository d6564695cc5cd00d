// Checks with undici, each on a connection of its own: `node checker.mjs URL IN_FLIGHT SECONDS` prints {checks, failed}.
import { performance } from 'node:perf_hooks';
import { Client } from 'undici';

const [url, inFlight, seconds] = process.argv.slice(2);
const { origin, pathname } = new URL(url);
const counts = { checks: 0, failed: 0 };
const endsAt = performance.now() + Number(seconds) * 1000;

async function check() {
  const client = new Client(origin, { pipelining: 0, headersTimeout: 10_000, bodyTimeout: 10_000 });
  try {
    const began = performance.now();
    const { statusCode, body } = await client.request({ path: pathname, method: 'GET' });
    for await (const _ of body);
    const totalMs = performance.now() - began;
    return statusCode >= 200 && statusCode <= 299 && totalMs >= 0;
  } catch {
    return false;
  } finally {
    await client.destroy();
  }
}

async function keepChecking() {
  while (performance.now() < endsAt) counts[(await check()) ? 'checks' : 'failed'] += 1;
}

await Promise.all(Array.from({ length: Number(inFlight) }, keepChecking));
console.log(JSON.stringify(counts));
