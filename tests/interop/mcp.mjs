// The conformance suite of the Model Context Protocol. Its scenarios for clients run `examples/mcp_client.rs`. Its scenario for
// servers is not in npm: its checks are made here, under its names, with jose.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';

import {
  base64url, calculateJwkThumbprint, exportJWK, generateKeyPair, SignJWT,
} from 'jose';

import { mcpConformance, resourceServer, serve } from './servers.mjs';
import { holds, scenario } from './table.mjs';

const SUITE = '@modelcontextprotocol/conformance';
export const ISSUER = 'https://as.example.com';

export async function mcp() {
  for (const nonces of [false, true]) {
    await scenario([SUITE], nonces ? 'auth/dpop-nonce' : 'auth/dpop', (_, row) => client(nonces, row), nonces ? 11 : 9);
  }
  await scenario([SUITE], 'our client', logins, LOGINS.length);
  for (const nonces of [false, true]) {
    await scenario(['jose'], `MCP dpop-server-validation, nonces ${nonces ? 'on' : 'off'}`, (use, row) =>
      server(nonces, use, row), nonces ? 27 : 25);
  }
}

/** The checks that a client must pass: of its login, then of its proofs. */
const CLIENT = [
  'prm-pathbased-requested', 'authorization-server-metadata', 'client-registration', 'authorization-request', 'token-request',
  'sep-1932-client-token-request-proof', 'sep-1932-client-dpop-auth-scheme', 'sep-1932-client-fresh-proof',
];

async function client(nonces, row) {
  const checks = await mcpConformance(nonces ? 'auth/dpop-nonce' : 'auth/dpop');
  const demanded = nonces ? ['sep-1932-client-as-nonce', 'sep-1932-client-rs-nonce'] : [];
  for (const id of [...CLIENT, ...demanded]) await row(id, 'SUCCESS', () => statuses(checks, id));
  await row('checks that failed or warned', 'none', () => bad(checks));
}

/**
 * Scenarios about logins, and the check that each is for. Their tokens are not bound to a key, so our client ends with the token
 * response. Where it rejects the callback, it waits for another one, until it is ended after these seconds.
 */
const LOGINS = [
  ['auth/iss-supported-missing', 'sep-2468-client-reject-missing-iss', 15],
  ['auth/iss-wrong-issuer', 'sep-2468-client-compare-iss-supported', 15],
  ['auth/iss-unexpected', 'sep-2468-client-compare-iss-unadvertised', 15],
  ['auth/iss-normalized', 'sep-2468-client-no-normalization', 15],
  ['auth/metadata-default', 'resource-parameter-matches-prm'],
  ['auth/metadata-var1', 'resource-parameter-matches-prm'],
  ['auth/metadata-var2', 'resource-parameter-matches-prm'],
  ['auth/metadata-var3', 'resource-parameter-matches-prm'],
  ['auth/scope-from-www-authenticate', 'scope-from-www-authenticate'],
  ['auth/scope-from-scopes-supported', 'scope-from-scopes-supported'],
  ['auth/scope-omitted-when-undefined', 'scope-omitted-when-undefined'],
  ['auth/token-endpoint-auth-none', 'token-endpoint-auth-method'],
  ['auth/resource-mismatch', 'resource-mismatch-rejected'],
  ['auth/metadata-issuer-mismatch', 'sep-2468-client-validate-metadata-issuer'],
  ['auth/iss-supported', 'sep-2468-client-compare-iss-supported'],
  ['auth/iss-not-advertised', 'sep-2468-client-proceed-no-iss'],
];

async function logins(_, row) {
  const results = [];
  const left = LOGINS.entries();
  const work = async () => {
    for (const [index, [name, , patience]] of left) {
      results[index] = await mcpConformance(name, patience)
        .catch((error) => [{ id: `${error}`, status: 'FAILURE' }]);
    }
  };
  // The four that wait need no processor.
  await Promise.all(Array.from({ length: 6 }, work));
  for (const [index, [name, id, waits]] of LOGINS.entries()) {
    const checks = results[index];
    await row(`${name}: ${id}`, 'SUCCESS', () => {
      holds('checks that failed or warned', bad(checks), 'none');
      // Otherwise a client that never gets so far would pass.
      if (waits) holds('authorization-request', statuses(checks, 'authorization-request'), 'SUCCESS');
      return statuses(checks, id);
    });
  }
}

export function statuses(checks, wanted) {
  const found = checks.filter(({ id }) => id === wanted);
  return [...new Set(found.map(({ status }) => status))].join(' ') || 'missing';
}

export function bad(checks) {
  const others = checks.filter(({ status }) => !['SUCCESS', 'INFO'].includes(status));
  return others.map(({ id, status, errorMessage }) => `${id} ${status} ${errorMessage}`).join(', ') || 'none';
}

const REJECTED = '401 DPoP invalid_dpop_proof';

/**
 * The checks of a server. Each changes one thing in a good request: a claim of its `token`, the `proof` before it is signed, or what
 * is `sent`. The suite wants 401 and a DPoP challenge (for `RejectsBearerScheme` any rejection); the error is ours.
 */
const SERVER = {
  RejectsTamperedSignature: {
    sent(request) {
      const end = request.proofs[0].lastIndexOf('.') + 1;
      const [signed, signature] = [request.proofs[0].slice(0, end), request.proofs[0].slice(end)];
      request.proofs = [signed + (signature[0] === 'A' ? 'B' : 'A') + signature.slice(1)];
    },
  },
  RejectsMissingJti: { proof({ claims }) { delete claims.jti; } },
  RejectsMissingHtm: { proof({ claims }) { delete claims.htm; } },
  RejectsMissingHtu: { proof({ claims }) { delete claims.htu; } },
  RejectsMissingIat: { proof({ claims }) { delete claims.iat; } },
  RejectsMissingJwk: { proof({ header }) { delete header.jwk; } },
  RejectsWrongTyp: { proof({ header }) { header.typ = 'jwt'; } },
  RejectsHtuMismatch: { proof({ claims }) { claims.htu = 'https://wrong.example.com/mcp'; } },
  RejectsHtmMismatch: { proof({ claims }) { claims.htm = 'GET'; } },
  RejectsPrivateKeyInJwk: { proof({ header, key }) { header.jwk = key.both; } },
  RejectsWrongAth: { proof({ claims }) { claims.ath = 'not-the-right-hash'; } },
  RejectsAthAbsent: { proof({ claims }) { delete claims.ath; } },
  RejectsStaleIat: { proof({ claims }) { claims.iat -= 303; } },
  RejectsFutureIat: { proof({ claims }) { claims.iat += 303; } },
  RejectsAlgNone: { proof({ header }) { header.alg = 'none'; } },
  RejectsAlgSymmetric: { proof({ header }) { header.alg = 'HS256'; } },
  RejectsMalformedProof: { sent(request) { request.proofs = ['this-is-not-a-jwt']; } },
  RejectsDuplicateDpopHeader: { sent(request) { request.proofs.push(request.another); } },
  RejectsBearerScheme: { sent(request) { request.scheme = 'Bearer'; }, wanted: '401 DPoP invalid_token' },
  RejectsCnfJktMismatch: { token(claims) { claims.cnf.jkt = base64url.encode(randomBytes(32)); }, wanted: '401 DPoP invalid_token' },
  RejectsWrongAudience: { token(claims) { claims.aud = 'https://other.example.com/mcp'; }, wanted: '401 DPoP invalid_token' },
};

async function server(nonces, use, row) {
  const issuing = await signingKey();
  const keys = await use(serve(() => (_, response) => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify({ keys: [{ ...issuing.jwk, alg: 'ES256', kid: 'mcp' }] }));
  }));
  const resource = await use(resourceServer({ issuer: ISSUER, jwks: keys.url }, {
    // No other age of proofs would pass both checks of `iat`: the suite's window is five minutes wide.
    nonces, audience: null, metadata: true, maxAge: 300, leeway: 0,
  }));
  const target = { url: `${resource.url}/protected`, audience: resource.url, issuing, key: await signingKey() };
  // As a client keeps it.
  let nonce;
  const visit = async (change = {}, { nonce: chosen } = { nonce }) => {
    const response = await send(target.url, await make(target, chosen, change));
    nonce = response.nonce ?? nonce;
    return response;
  };

  await row('NonceFlow: none in the proof', nonces ? '401 DPoP use_dpop_nonce' : '200', async () => (await visit()).text);
  if (nonces) {
    await row('NonceFlow: the one that was demanded', '200', async () => (await visit()).text);
    await row('NonceFlow: another', '401 DPoP use_dpop_nonce', async () =>
      (await visit({}, { nonce: 'definitely-not-the-server-nonce' })).text);
  }
  await row('AcceptsValidProof', '200', async () => (await visit()).text);
  for (const [name, { wanted = REJECTED, ...change }] of Object.entries(SERVER)) {
    await row(name, wanted, async () => (await visit(change)).text);
  }
  await row('RejectsWith401Challenge', '401 DPoP invalid_dpop_proof, algs, resource_metadata', async () => {
    const { text, challenge } = await visit(SERVER.RejectsTamperedSignature);
    const named = ['algs', 'resource_metadata'].filter((parameter) => challenge.includes(`${parameter}="`));
    return [text, ...named].join(', ');
  });
  await row('AcceptsValidProof, after all that', '200', async () => (await visit()).text);
}

/** A pair, the public half as a JWK, and both halves. */
export async function signingKey() {
  const { privateKey, publicKey } = await generateKeyPair('ES256', { extractable: true });
  return { privateKey, jwk: await exportJWK(publicKey), both: await exportJWK(privateKey) };
}

/** A good request with one change. */
async function make({ url, audience, issuing, key }, nonce, change) {
  const now = Math.floor(Date.now() / 1000);
  const granted = {
    iss: ISSUER, aud: audience, sub: 'client', client_id: 'client', iat: now, exp: now + 300,
    jti: crypto.randomUUID(), cnf: { jkt: await calculateJwkThumbprint(key.jwk) },
  };
  change.token?.(granted);
  const token = await new SignJWT(granted)
    .setProtectedHeader({ typ: 'at+jwt', alg: 'ES256', kid: 'mcp' }).sign(issuing.privateKey);
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(token));
  const proof = async () => {
    const made = {
      key,
      header: { typ: 'dpop+jwt', alg: 'ES256', jwk: key.jwk },
      claims: {
        jti: crypto.randomUUID(), htm: 'POST', htu: url, iat: now, ath: base64url.encode(new Uint8Array(digest)), nonce,
      },
    };
    change.proof?.(made);
    return sign(made);
  };
  const request = { scheme: 'DPoP', token, proofs: [await proof()], another: await proof() };
  change.sent?.(request);
  return request;
}

function sign({ header, claims, key }) {
  if (header.alg === 'none') {
    return `${[header, claims].map((part) => base64url.encode(JSON.stringify(part))).join('.')}.`;
  }
  const secret = header.alg === 'HS256' ? randomBytes(32) : key.privateKey;
  return new SignJWT(claims).setProtectedHeader(header).sign(secret);
}

/** The first message of the protocol. Each proof has a header field of its own, which `fetch` would join. */
async function send(url, { scheme, token, proofs }) {
  const outgoing = request(url, {
    method: 'POST',
    headers: {
      accept: 'application/json, text/event-stream', authorization: `${scheme} ${token}`, 'content-type': 'application/json',
      dpop: proofs,
    },
  });
  const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'interop', version: '1' } };
  outgoing.end(JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'initialize', params }));
  const [response] = await once(outgoing, 'response');
  response.resume();
  const challenge = response.headers['www-authenticate'] ?? '';
  const error = /\berror="([^"]*)"/.exec(challenge)?.[1];
  const text = [response.statusCode, challenge.split(' ')[0], error].filter(Boolean).join(' ');
  return { text, challenge, nonce: response.headers['dpop-nonce'] };
}
