// Scenarios of the conformance suite of the Model Context Protocol that are not in npm, run by the suite itself, from the
// checkout that MCP_CONFORMANCE names. README.md describes how to make one.

import { existsSync } from 'node:fs';
import { join } from 'node:path';

import { bad, ISSUER, signingKey, statuses } from './mcp.mjs';
import { authorizationServer, freePort, mcpCheckout, resourceServer, serve } from './servers.mjs';
import { CHECKOUT, conclude, scenario } from './table.mjs';

const checkout = process.env[CHECKOUT];
if (!checkout) throw new Error(`${CHECKOUT} must name a folder`);
const has = (file) => existsSync(join(checkout, 'src/scenarios', file));

for (const nonces of [false, true]) {
  const options = `nonces ${nonces ? 'on' : 'off'}`;
  if (has('server/auth/dpop.ts')) {
    await scenario([CHECKOUT], `auth/dpop-server-validation, ${options}`, (use, row) => atResource(nonces, use, row));
  }
  if (has('authorization-server/dpop.ts')) {
    await scenario([CHECKOUT], `dpop, authorization server, ${options}`, (use, row) => atIssuer(nonces, use, row));
  }
}
process.exitCode = conclude() ? 0 : 1;

async function atResource(nonces, use, row) {
  const { jwk, both } = await signingKey();
  const names = { alg: 'ES256', kid: 'mcp' };
  const keys = await use(serve(() => (_, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ keys: [{ ...jwk, ...names }] }));
  }));
  // The suite's tokens are for the URL that it calls.
  const port = await freePort();
  const url = `http://127.0.0.1:${port}/protected`;
  await use(resourceServer({ issuer: ISSUER, jwks: keys.url }, {
    nonces, audience: url, metadata: true, maxAge: 300, leeway: 0, port,
  }));
  const checks = await mcpCheckout(checkout, [
    'server', '--url', url, '--scenario', 'auth/dpop-server-validation',
  ], { DPOP_ISSUER: ISSUER, DPOP_ISSUER_PRIVATE_JWK: JSON.stringify({ ...both, ...names }) });
  await compare(checks, nonces ? 24 : 23, row);
  await row('sep-1932-server-nonce', nonces ? 'SUCCESS' : 'SKIPPED', () => statuses(checks, 'sep-1932-server-nonce'));
}

async function atIssuer(nonces, use, row) {
  const issuer = await use(authorizationServer({ nonces }));
  const checks = await mcpCheckout(checkout, [
    'authorization', '--url', issuer.url, '--client-id', 'app', '--port', `${await freePort()}`, '--scenario', 'dpop',
  ]);
  await compare(checks, 3, row);
}

async function compare(checks, passed, row) {
  await row('checks that pass', `${passed}`, () => checks.filter(({ status }) => status === 'SUCCESS').length);
  await row('the first that fails or warns', 'none', () =>
    bad(checks.filter(({ status }) => !['SUCCESS', 'SKIPPED'].includes(status)).slice(0, 1)));
}
