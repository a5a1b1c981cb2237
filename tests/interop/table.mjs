// What was tried and what came of it: every assertion is a row, and the rows are the table.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';

/** The variable with the folder of a checkout of MCP's conformance suite, and the name of this suite in the table. */
export const CHECKOUT = 'MCP_CONFORMANCE';

const rows = [];
/** How the proxies in INTEROP_PROXIES write their versions. */
const PROXIES = { caddy: /^v(\S+)/, envoy: /\/(\d+\.\d+\.\d+)\//, traefik: /Version: +(\S+)/ };

/** The installed version of a program or a package. */
export function version(name) {
  if (name === 'nginx') return /nginx\/(\S+)/.exec(spawnSync('nginx', ['-v']).stderr)[1];
  if (name === 'redis-server') return /v=(\S+)/.exec(spawnSync(name, ['--version']).stdout)[1];
  if (name === 'haproxy') return /version (\S+)/.exec(spawnSync(name, ['-v']).stdout)[1];
  if (name in PROXIES) {
    const program = `${process.env.INTEROP_PROXIES}/${name}`;
    return PROXIES[name].exec(spawnSync(program, [name === 'envoy' ? '--version' : 'version']).stdout)[1];
  }
  if (name === 'node') return process.versions.node;
  if (name === CHECKOUT) return `${spawnSync('git', ['-C', process.env[CHECKOUT], 'rev-parse', '--short', 'HEAD']).stdout}`.trim();
  if (name === 'curl') return /curl (\S+)/.exec(spawnSync('curl', ['--version']).stdout)[1];
  if (name === 'httpx' || name === 'requests') {
    const text = readFileSync(new URL('requirements.txt', import.meta.url), 'utf8');
    return new RegExp(`^${name}==(.*)$`, 'm').exec(text)[1];
  }
  const file = new URL(`node_modules/${name}/package.json`, import.meta.url);
  return JSON.parse(readFileSync(file, 'utf8')).version;
}

/**
 * One assertion, and one row. `attempt` makes what is compared with `wanted`: a text, or anything
 * that `outcomeOf` puts into words. A rejection that a library throws is an outcome like any other.
 */
export async function expect(software, name, wanted, attempt) {
  let result;
  let differs = true;
  try {
    result = await outcomeOf(attempt);
    differs = result !== wanted;
  } catch (error) {
    result = `${error.name}: ${error.message}`.split('\n')[0];
    console.error(`${software.join(' + ')}: ${name}:`, error);
  }
  if (differs) result = `DIFFERS: ${result}, expected ${wanted}`;
  rows.push({ software, name, result, differs });
  console.error(`${software.join(' + ')}: ${name}: ${result}`);
}

/** What holds besides the outcome of an attempt; what does not hold makes its row differ. */
export function holds(name, actual, wanted) {
  if (!isDeepStrictEqual(actual, wanted)) {
    throw new Error(`${name}: ${JSON.stringify(actual)} instead of ${JSON.stringify(wanted)}`);
  }
}

/**
 * Steps that share servers. Whatever `use` was given is stopped in the end, also after a failure,
 * which is a row of its own. For a suite of others, `complete` is the number of its rows, so that none gets lost.
 */
export async function scenario(software, name, steps, complete) {
  const started = [];
  const before = rows.length;
  const use = async (starting) => {
    const server = await starting;
    started.unshift(server);
    return server;
  };
  try {
    await steps(use, (what, wanted, attempt) =>
      expect(software, `${name}: ${what}`, wanted, attempt));
  } catch (error) {
    console.error(error);
    await expect(software, `${name}: the other steps`, 'tried', () => 'broken off');
  }
  const made = rows.length - before;
  if (made === 0 || made !== (complete ?? made)) {
    await expect(software, `${name}: rows`, `${complete ?? 'some'}`, () => made);
  }
  for (const server of started) await server.stop();
}

/** An outcome in a few words: `200`, `200 dpop`, `401 invalid_token`, `400 invalid_grant`. */
export async function outcomeOf(attempt) {
  let outcome;
  try {
    outcome = await attempt();
  } catch (error) {
    return rejection(error);
  }
  if (outcome instanceof Response) return status(outcome);
  return outcome.token_type ? `200 ${outcome.token_type}` : `${outcome}`;
}

/** Prints the table. Says whether everything was as expected. */
export function conclude() {
  const cells = rows.map(({ software, name, result }) =>
    [software.join(' + '), software.map(version).join(' + '), name, result]);
  print([['foreign software', 'version', 'what was tried', 'result'], ...cells]);
  const differing = rows.filter(({ differs }) => differs).length;
  console.log(`\n${rows.length} tried, ${differing} differ`);
  return rows.length > 0 && differing === 0;
}

/** The status of a response, and the error that its challenge or its body names. */
async function status(response) {
  const challenge = response.headers.get('www-authenticate') ?? '';
  const challenged = /\berror="([^"]*)"/.exec(challenge)?.[1];
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  const named = challenged ?? (isJson ? (await response.clone().json()).error : undefined);
  return [response.status, named].filter(Boolean).join(' ');
}

/** The same of what oauth4webapi throws, which is also what openid-client throws. */
function rejection(error) {
  switch (error.code) {
    case 'OAUTH_RESPONSE_BODY_ERROR':
      return `${error.status} ${error.error}`;
    case 'OAUTH_WWW_AUTHENTICATE_CHALLENGE':
      return status(error.response);
    default:
      throw error;
  }
}

function print(lines) {
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const row = (cells) => `| ${cells.map((cell, i) => cell.padEnd(widths[i])).join(' | ')} |`;
  console.log(row(lines[0]));
  console.log(`|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`);
  for (const line of lines.slice(1)) console.log(row(line));
}
