// The example `browser` in a real browser: what the user sees, what goes over the wire, and what must not work.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { generateKeyPairSync, randomUUID, sign } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import puppeteer from 'puppeteer-core';

import { freeAddress, start } from './servers.mjs';

const AUDIENCE = 'urn:orders';
const folder = await mkdtemp(join(tmpdir(), 'browser-'));
const secrets = join(folder, 'nonce-secrets');
await writeFile(secrets, `${'1'.repeat(64)}\n`);

// The page's address comes first, because the two servers allow it.
const pageAddress = await freeAddress();
const ORIGIN = `http://${pageAddress}`;
const allow = ['--allow-origin', ORIGIN];
const issuer = await start('authorization_server', '127.0.0.1:0', '--audience', AUDIENCE, '--nonces', ...allow);
const resource = (audience) => start('resource_server', '127.0.0.1:0', '--issuer', issuer.url, '--audience', audience,
  '--nonce-secret-file', secrets, ...allow);
const api = await resource(AUDIENCE);
const RESOURCE = `${api.url}/protected`;
await start('browser', pageAddress, '--issuer', issuer.url, '--resource', RESOURCE);

const browser = await puppeteer.launch({
  executablePath: programOf(process.env.CHROMIUM),
  // Its sandbox cannot be used by root.
  args: process.getuid?.() === 0 ? ['--no-sandbox'] : [],
});
process.on('exit', () => browser.process().kill('SIGKILL'));

let steps = 0;
const consoleErrors = [];
/** Of all tabs: the proofs that were sent, and the nonces that each origin issued. */
const proofs = [];
const nonces = [];
const page = await open();

await step('the page has a strict policy', async () => {
  const response = await page.goto(ORIGIN);
  const policy = response.headers()['content-security-policy'];
  assert.match(policy, /^default-src 'none'; script-src 'self'; /);
  assert.ok(policy.includes(`connect-src ${issuer.url} ${api.url};`), policy);
  await resultIs('You are not logged in.');
  assert.deepEqual(await enabled(), ['log-in']);
  assert.equal((await fetch(`${ORIGIN}/main.rs`)).status, 404);
});

await step('the user may deny', async () => {
  await logIn('deny');
  await resultIs('The login failed: access_denied');
  assert.deepEqual(await enabled(), ['log-in', 'log-out']);
});

await step('logs in with a code, PKCE and dpop_jkt', async () => {
  await logIn('allow', async () => {
    const request = new URL(page.url()).searchParams;
    assert.equal(request.get('client_id'), 'browser');
    assert.equal(request.get('code_challenge_method'), 'S256');
    assert.equal(request.get('dpop_jkt').length, 43);
    await screenshots('consent');
  });
  await resultIs('You are logged in.');
  assert.equal(page.url(), `${ORIGIN}/`, 'the code is not in the address bar');
  assert.deepEqual(await exchanges(), [
    ['The user went to ' + issuer.url + '/authorize', 'came back'],
    [`GET ${issuer.url}/.well-known/oauth-authorization-server`, '200'],
    [`POST ${issuer.url}/token`, '400 use_dpop_nonce'],
    [`POST ${issuer.url}/token`, '200'],
  ]);
});

await step('the API demands a nonce once, and then knows the user', async () => {
  await click('call');
  await resultIs('200: the API knows you as alice.');
  assert.deepEqual((await exchanges()).slice(-2), [[`GET ${RESOURCE}`, '401 use_dpop_nonce'], [`GET ${RESOURCE}`, '200']]);
  await click('call');
  await resultIs('200: the API knows you as alice.');
  assert.deepEqual((await exchanges()).slice(-2), [[`GET ${RESOURCE}`, '200'], [`GET ${RESOURCE}`, '200']]);
  await screenshots('called');
});

await step('the page shows the proof and the token, bound to the same key', async () => {
  const parts = await newestExchange();
  const jkt = (await text('#key')).split(' ')[0];
  assert.deepEqual(Object.keys(parts), ['Request', 'Response', 'The proof, decoded', 'The access token, decoded']);
  assert.ok(parts['The proof, decoded'].endsWith(`thumbprint of the jwk:\n${jkt}`));
  assert.ok(parts['The proof, decoded'].includes('"typ": "dpop+jwt"'));
  assert.ok(parts['The access token, decoded'].includes(`"jkt": "${jkt}"`));
  assert.ok(parts.Response.includes(`"jkt": "${jkt}"`));
  assert.ok(await page.$$eval('mark', (marks) => marks.length > 1));
});

await step('the same proof is rejected', async () => {
  await click('replay');
  await resultIs('401 invalid_dpop_proof');
  const { Response } = await newestExchange();
  assert.match(Response, /www-authenticate: DPoP .*the DPoP proof was used before/);
  await screenshots('replayed');
  await click('call');
  await resultIs('200: the API knows you as alice.');
});

await step('a new secret for nonces costs one request, and no reload', async () => {
  const nonce = async () => (await fetch(RESOURCE, { headers: { authorization: 'DPoP t' } })).headers.get('dpop-nonce');
  const id = (await nonce()).slice(0, 5);
  await writeFile(secrets, `${'2'.repeat(64)}\n`);
  api.signal('SIGHUP');
  while ((await nonce()).startsWith(id)) await delay(20);
  await click('call');
  await resultIs('200: the API knows you as alice.');
  assert.deepEqual((await exchanges()).slice(-2), [[`GET ${RESOURCE}`, '401 use_dpop_nonce'], [`GET ${RESOURCE}`, '200']]);
});

await step('renews the access token', async () => {
  const refreshToken = await stored('refresh_token');
  await click('renew');
  await resultIs('The access token was renewed.');
  assert.deepEqual((await exchanges()).at(-1), [`POST ${issuer.url}/token`, '200']);
  assert.notEqual(await stored('refresh_token'), refreshToken);
});

await step('no script can read the private key', async () => {
  const outcome = await page.evaluate(async () => {
    const key = await new Promise((resolve) => {
      indexedDB.open('dpop').onsuccess = ({ target }) => {
        target.result.transaction('session').objectStore('session').get('key').onsuccess = (event) =>
          resolve(event.target.result);
      };
    });
    const attempts = ['jwk', 'pkcs8', 'raw'].map((format) => crypto.subtle.exportKey(format, key.privateKey));
    const reasons = (await Promise.allSettled(attempts)).map(({ reason }) => reason?.name);
    return [key.privateKey.type, key.privateKey.extractable, ...reasons];
  });
  assert.deepEqual(outcome, ['private', false, 'InvalidAccessError', 'InvalidAccessError', 'InvalidAccessError']);
  const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]);
  assert.deepEqual(kept, [0, 0, ''], 'everything else is in IndexedDB');
});

await step('a copied refresh token is useless with another key', async () => {
  const parameters = { grant_type: 'refresh_token', client_id: 'browser', refresh_token: await stored('refresh_token') };
  const [status, error] = await tokenRequest(parameters, generateKeyPairSync('ec', { namedCurve: 'P-256' }));
  assert.equal(status, 400);
  assert.match(error, /^invalid_(grant|dpop_proof)$/);
});

await step('a reload keeps the session', async () => {
  const jkt = await text('#key');
  await page.reload();
  await resultIs('You are still logged in.');
  assert.equal(await text('#key'), jkt);
  assert.equal(await text('#access-token'), 'none');
  await click('call');
  await resultIs('200: the API knows you as alice.');
  assert.deepEqual((await exchanges()).map(([, status]) => status),
    ['200', '400 use_dpop_nonce', '200', '401 use_dpop_nonce', '200']);
});

await step('tabs renew in turn', async () => {
  const other = await open();
  await other.goto(ORIGIN);
  await resultIs('You are still logged in.', other);
  await other.evaluate(() => new Promise((held) => {
    navigator.locks.request('session', () => {
      held();
      return new Promise((resolve) => { globalThis.release = resolve; });
    });
  }));
  await click('renew');
  await other.waitForFunction(async () => (await navigator.locks.query()).pending.length === 1, { polling: 20 });
  await click('call', other);
  await other.waitForFunction(async () => (await navigator.locks.query()).pending.length === 2, { polling: 20 });
  await other.evaluate(() => globalThis.release());
  await resultIs('The access token was renewed.');
  await resultIs('200: the API knows you as alice.', other);
  await click('renew');
  await resultIs('The access token was renewed.');
  await other.close();
});

await step('a clock that is wrong by an hour is corrected', async () => {
  const wrong = await open();
  await wrong.evaluateOnNewDocument(() => {
    const { now } = Date;
    Date.now = () => now() - 3_600_000;
  });
  await wrong.goto(ORIGIN);
  await resultIs('You are still logged in.', wrong);
  await click('call', wrong);
  await resultIs('200: the API knows you as alice.', wrong);
  assert.deepEqual((await exchanges(wrong)).map(([, status]) => status), [
    '200', '400 invalid_dpop_proof', '400 use_dpop_nonce', '200', '401 invalid_dpop_proof', '401 use_dpop_nonce', '200',
  ]);
  await wrong.close();
});

await step('a token that the API rejects is renewed once', async () => {
  const elsewhere = await resource('urn:invoices');
  const other = await openWithApi(`${elsewhere.url}/protected`);
  await other.goto(ORIGIN);
  await resultIs('You are still logged in.', other);
  await click('call', other);
  await resultIs('401 invalid_token', other);
  assert.deepEqual((await exchanges(other)).map(([, status]) => status), [
    '200', '400 use_dpop_nonce', '200', '401 invalid_token', '200', '401 invalid_token',
  ]);
  await other.close();
});

await step('a server that always demands another nonce gets two requests', async () => {
  let requests = 0;
  const hostile = createServer((request, response) => {
    response.setHeader('access-control-allow-origin', ORIGIN);
    response.setHeader('access-control-allow-headers', 'authorization, dpop');
    response.setHeader('access-control-expose-headers', 'dpop-nonce, www-authenticate');
    if (request.method === 'OPTIONS') return response.end();
    requests += 1;
    response.setHeader('dpop-nonce', `nonce-${requests}`);
    response.setHeader('www-authenticate', 'DPoP error="use_dpop_nonce"');
    return response.writeHead(401).end();
  }).listen(0, '127.0.0.1');
  await once(hostile, 'listening');
  const other = await openWithApi(`http://127.0.0.1:${hostile.address().port}/protected`);
  await other.goto(ORIGIN);
  await resultIs('You are still logged in.', other);
  await click('call', other);
  await resultIs('401 use_dpop_nonce', other);
  assert.equal(requests, 2);
  await other.close();
  hostile.close();
});

await step('a response to a login of another tab or server is rejected', async () => {
  await page.goto(`${ORIGIN}/?code=c&state=s&iss=${encodeURIComponent(issuer.url)}`);
  await resultIs('This tab has not started this login.');
  assert.equal(page.url(), `${ORIGIN}/`);
  const started = () => page.evaluate(() => {
    sessionStorage.setItem('login', JSON.stringify({ state: 's', verifier: 'v', url: 'http://127.0.0.1/authorize' }));
  });
  for (const iss of ['', '&iss=http://127.0.0.1:1']) {
    await started();
    await page.goto(`${ORIGIN}/?code=c&state=s${iss}`);
    await resultIs('Another server has responded to the login.');
    assert.deepEqual((await exchanges()).length, 1, 'no code is sent');
  }
});

await step('another origin is not allowed', async () => {
  const foreign = await start('browser', '127.0.0.1:0', '--issuer', issuer.url, '--resource', RESOURCE);
  const other = await open();
  await other.goto(foreign.url);
  await resultIs('You are not logged in.', other);
  await click('log-in', other);
  await resultIs('No response: the server is down, or it does not allow this origin (CORS).', other);
  const attempt = await other.evaluate(async (url) => {
    try {
      return (await fetch(url, { headers: { authorization: 'DPoP t', dpop: 'p' } })).status;
    } catch (error) {
      return error.name;
    }
  }, RESOURCE);
  assert.equal(attempt, 'TypeError');
  assert.ok(consoleErrors.some((error) => error.includes('blocked by CORS policy')));
  await screenshots('not-allowed', other);
  await other.close();
  // Nor may this origin take a code of the client.
  const query = new URLSearchParams({ client_id: 'browser', response_type: 'code', redirect_uri: `${foreign.url}/` });
  assert.equal((await fetch(`${issuer.url}/authorize?${query}`)).status, 400);
  const headers = { origin: ORIGIN };
  const authorize = await fetch(`${issuer.url}/authorize`, { headers });
  assert.equal(authorize.headers.get('access-control-allow-origin'), null, 'RFC 9700 section 2.6');
});

await step('the policy stops injected code', async () => {
  const outcome = await page.evaluate(() => {
    try {
      document.body.innerHTML = '<img src=x onerror=alert(1)>';
      return 'markup';
    } catch (error) {
      return error.name;
    }
  });
  assert.equal(outcome, 'TypeError');
});

await step('logs out, and deletes the key', async () => {
  await click('log-out');
  await resultIs('The key and the tokens are deleted.');
  assert.deepEqual([await stored('key'), await stored('refresh_token')], [undefined, undefined]);
  assert.deepEqual(await enabled(), ['log-in']);
  await page.reload();
  await resultIs('You are not logged in.');
  await screenshots('logged-out');
});

await step('each proof was for its request, and each nonce of its server', async () => {
  const used = new Map();
  for (const { method, url, header, claims } of proofs) {
    assert.deepEqual([claims.htm, claims.htu], [method, url]);
    assert.deepEqual(Object.keys(header.jwk).sort(), ['crv', 'kty', 'x', 'y'], 'no private member');
    assert.equal(claims.ath !== undefined, url.endsWith('/protected'));
    used.set(claims.jti, (used.get(claims.jti) ?? 0) + 1);
    const nonce = claims.nonce && `${claims.nonce} of ${new URL(url).origin}`;
    assert.ok(!nonce || nonces.includes(nonce), `${nonce} was not issued`);
  }
  assert.equal([...used.values()].filter((count) => count > 1).length, 1, 'only the replay');
});

const unexpected = consoleErrors.filter((error) => ![
  /^Failed to load resource: the server responded with a status of 40[01] /,
  /has been blocked by CORS policy/,
  /^Failed to load resource: net::ERR_FAILED/,
  /This document requires 'TrustedHTML' assignment/,
].some((expected) => expected.test(error)));
assert.deepEqual(unexpected, [], 'unexpected errors in the console');
console.log(`${steps} steps, no unexpected error in the console`);
await finish(0);

// ---- Helpers ------------------------------------------------------------------------------------

async function step(name, act) {
  try {
    await act();
  } catch (error) {
    console.error(`FAILED: ${name}\n`, error, '\nconsole:', consoleErrors, '\nexchanges:', await exchanges().catch(String));
    await page.bringToFront();
    await page.screenshot({ path: join(process.env.SCREENSHOTS, 'failed.png'), fullPage: true });
    await finish(1);
  }
  steps += 1;
  console.log(`ok: ${name}`);
}

async function finish(code) {
  await browser.close();
  await rm(folder, { recursive: true });
  process.exit(code);
}

async function open() {
  const opened = await browser.newPage();
  opened.setDefaultTimeout(20_000);
  opened.on('console', (message) => { if (message.type() === 'error') consoleErrors.push(message.text()); });
  opened.on('request', (request) => {
    const { dpop } = request.headers();
    if (!dpop?.includes('.')) return;
    const [header, claims] = dpop.split('.').slice(0, 2).map((part) => JSON.parse(Buffer.from(part, 'base64url')));
    proofs.push({ method: request.method(), url: request.url(), header, claims });
  });
  opened.on('response', (response) => {
    const nonce = response.headers()['dpop-nonce'];
    if (nonce) nonces.push(`${nonce} of ${new URL(response.url()).origin}`);
  });
  opened.on('pageerror', (error) => consoleErrors.push(`${error}`));
  return opened;
}

/** The path of a program. */
function programOf(name) {
  return execFileSync('sh', ['-c', 'command -v -- "$1"', 'sh', name], { encoding: 'utf8' }).trim();
}

/** A tab in which the page calls another API. */
async function openWithApi(url) {
  const opened = await open();
  await opened.setBypassCSP(true);
  // Before the script reads it.
  await opened.evaluateOnNewDocument((api) => {
    new MutationObserver((_, observer) => {
      const meta = document.querySelector('meta[name=resource]');
      if (!meta) return;
      meta.content = api;
      observer.disconnect();
    }).observe(document, { childList: true, subtree: true });
  }, url);
  return opened;
}

function text(selector, on = page) {
  return on.$eval(selector, (element) => element.textContent);
}

function enabled() {
  return page.$$eval('#buttons button:enabled', (buttons) => buttons.map(({ id }) => id));
}

/** Waits until the page shows this result. */
async function resultIs(expected, on = page) {
  const shown = on.waitForFunction((wanted) => {
    const finished = [...document.querySelectorAll('#buttons button')].some(({ disabled }) => !disabled);
    return finished && document.querySelector('#result').textContent === wanted;
  }, { polling: 20 }, expected); // not by animation frames: a tab in the background has none
  await shown.catch(async () => assert.equal(await text('#result', on), expected));
}

/** Clicks a button, and forgets the result before. */
async function click(id, on = page) {
  await on.waitForSelector(`#${id}:enabled`);
  await on.$eval('#result', (result) => { result.textContent = ''; });
  await on.$eval(`#${id}`, (button) => button.click());
}

async function logIn(decision, before = async () => {}) {
  await Promise.all([page.waitForNavigation(), click('log-in')]);
  await before();
  await Promise.all([page.waitForNavigation(), page.click(`button[value=${decision}]`)]);
}

/** Title and status of each exchange on the page, the oldest first. */
async function exchanges(on = page) {
  const shown = await on.$$eval('.exchange', (all) => all.map((exchange) =>
    ['.title', '.status'].map((part) => exchange.querySelector(part).textContent)));
  return shown.reverse();
}

/** The parts of the newest exchange by their headings. */
function newestExchange() {
  return page.$eval('.exchange', (exchange) => Object.fromEntries([...exchange.querySelectorAll('.part')].map((part) =>
    [part.querySelector('h3').textContent, part.querySelector('pre').textContent])));
}

/** What is in IndexedDB under a name, if it can be copied out of the page; `{}` stands for keys. */
function stored(name) {
  return page.evaluate((wanted) => new Promise((resolve) => {
    indexedDB.open('dpop').onsuccess = ({ target }) => {
      const database = target.result;
      database.transaction('session').objectStore('session').get(wanted).onsuccess = (event) => {
        database.close();
        resolve(event.target.result);
      };
    };
  }), name);
}

/** A token request from outside the browser, with a proof by another key: status and error. */
async function tokenRequest(parameters, { privateKey, publicKey }) {
  const url = `${issuer.url}/token`;
  const { kty, crv, x, y } = publicKey.export({ format: 'jwk' });
  let nonce;
  for (;;) {
    const header = { typ: 'dpop+jwt', alg: 'ES256', jwk: { kty, crv, x, y } };
    const claims = { jti: randomUUID(), htm: 'POST', htu: url, iat: Math.floor(Date.now() / 1000), nonce };
    const input = [header, claims].map((json) => Buffer.from(JSON.stringify(json)).toString('base64url')).join('.');
    const signature = sign('sha256', Buffer.from(input), { key: privateKey, dsaEncoding: 'ieee-p1363' });
    const headers = { dpop: `${input}.${signature.toString('base64url')}` };
    const response = await fetch(url, { method: 'POST', headers, body: new URLSearchParams(parameters) });
    const { error } = await response.json();
    if (error !== 'use_dpop_nonce' || nonce) return [response.status, error];
    nonce = response.headers.get('dpop-nonce');
  }
}

/** Light and dark, wide and narrow. */
async function screenshots(name, of = page) {
  for (const scheme of ['light', 'dark']) {
    await of.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
    for (const width of [1280, 390]) {
      await of.setViewport({ width, height: 900 });
      const path = join(process.env.SCREENSHOTS, `browser-${name}-${scheme}-${width}.png`);
      await of.screenshot({ path, fullPage: true });
      const scrolls = await of.evaluate(() => document.documentElement.scrollWidth > innerWidth);
      assert.equal(scrolls, false, `${name} at ${width} px scrolls sideways`);
    }
  }
  await of.setViewport({ width: 1280, height: 900 });
}
