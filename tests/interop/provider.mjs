// oidc-provider as the authorization server, and our resource server behind it.

import { randomBytes } from 'node:crypto';

import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';

import { Oauth4webapi, OpenidClient } from './libraries.mjs';
import { AUDIENCE, resourceServer, serve } from './servers.mjs';
import { holds, scenario } from './table.mjs';

export const PROOF_ALGS = ['ES256', 'ES384', 'PS256', 'RS256', 'Ed25519', 'EdDSA'];
const TOKEN_ALGS = ['ES256', 'ES384', 'PS256', 'RS256', 'Ed25519', 'EdDSA'];
export const SERVICE = { secret: 'service-secret' };
const SCOPES = ['orders:read', 'orders:write'];
/** What a client asks for to get a JWT for our resource server instead of an opaque token. */
export const INDICATOR = { resource: AUDIENCE, scope: 'orders:read' };
/** The same of an opaque token that is for our resource server, or for another API. */
export const OPAQUE = { ...INDICATOR, resource: `${AUDIENCE}opaque` };
export const OPAQUE_ELSEWHERE = { ...INDICATOR, resource: 'https://other.example.com/opaque' };

/**
 * Starts oidc-provider with three confidential clients: `service` must send proofs, `veteran` need
 * not, `orders-api` is our resource server. `rotate` has it go on with other keys. `resource` is what
 * tokens are for if a client does not say it.
 */
export async function oidcProvider({ tokenAlg = 'ES256', ...options } = {}) {
  const key = await signingKey('provider', tokenAlg);
  const adapter = createMemoryAdapter();
  const configured = (issuer, keys) =>
    new Provider(issuer, { ...configuration({ ...options, tokenAlg, keys }), adapter }).callback();
  const server = await serve((issuer) => configured(issuer, [key]));
  const issuer = server.url;
  return {
    ...server,
    issuer,
    jwks: `${issuer}/jwks`,
    key,
    rotate: (keys) => server.respondWith(configured(issuer, keys)),
    introspection: { endpoint: `${issuer}/token/introspection`, id: 'orders-api', ...SERVICE },
  };
}

/** A key of an issuer, with its private half. */
export async function signingKey(kid, alg = 'ES256') {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  return { ...(await exportJWK(privateKey)), alg, use: 'sig', kid };
}

/** Of the keys, the first signs. */
function configuration({ dpop = true, nonces = false, proofAlgs = PROOF_ALGS, resource, tokenAlg, keys }) {
  const client = (id, metadata) => ({
    client_id: id,
    client_secret: SERVICE.secret,
    grant_types: ['client_credentials'],
    // Another algorithm than the default would need another key.
    id_token_signed_response_alg: tokenAlg,
    redirect_uris: [],
    response_types: [],
    ...metadata,
  });
  return {
    clients: [
      client('service', dpop ? { dpop_bound_access_tokens: true } : {}),
      client('veteran'),
      client('orders-api'),
    ],
    cookies: { keys: [randomBytes(32).toString('hex')] },
    enabledJWA: { dPoPSigningAlgValues: proofAlgs, idTokenSigningAlgValues: TOKEN_ALGS },
    features: {
      clientCredentials: { enabled: true },
      dPoP: { enabled: dpop, nonceSecret: randomBytes(32), requireNonce: () => nonces },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        ...(resource ? { defaultResource: () => resource } : {}),
        getResourceServerInfo: (_, indicator) => ({
          accessTokenFormat: indicator.endsWith('opaque') ? 'opaque' : 'jwt',
          accessTokenTTL: 300,
          audience: indicator === OPAQUE.resource ? AUDIENCE : indicator,
          jwt: { sign: { alg: tokenAlg, kid: keys[0].kid } },
          scope: SCOPES.join(' '),
        }),
      },
      revocation: { enabled: true },
    },
    jwks: { keys },
    scopes: SCOPES,
    ttl: { ClientCredentials: 300 },
  };
}

/** Its tokens at our resource server, in the hands of foreign clients. */
export async function providerTokens() {
  for (const library of [Oauth4webapi, OpenidClient]) {
    const software = ['oidc-provider', library.software];
    for (const nonces of [false, true]) {
      await scenario(software, `its tokens, nonces ${nonces ? 'on' : 'off'}`, (use, row) =>
        proofAlgorithms({ library, nonces }, use, row));
    }
    await scenario(software, 'its tokens', (use, row) => misuse(library, use, row));
  }
  for (const tokenAlg of TOKEN_ALGS) {
    await scenario(['oidc-provider', 'oauth4webapi'], `its tokens by ${tokenAlg}`, (use, row) =>
      tokenAlgorithm(tokenAlg, use, row));
  }
}

async function proofAlgorithms({ library, nonces }, use, row) {
  const foreign = await use(oidcProvider({ nonces }));
  const resource = await use(resourceServer(foreign, { nonces, algs: PROOF_ALGS.join(' ') }));
  // The proofs of openid-client are those of oauth4webapi.
  for (const alg of library === Oauth4webapi ? PROOF_ALGS : ['ES256']) {
    await row(`${alg} proofs`, '200', async () => {
      const client = await library.connect(foreign.issuer, 'service', SERVICE);
      const key = await client.key(alg);
      const { access_token } = await client.clientCredentials(key, INDICATOR);
      const response = await client.fetch(access_token, key, `${resource.url}/protected`);
      const { sub, jkt } = await response.clone().json();
      holds('claims', [sub, jkt], ['service', await key.calculateThumbprint()]);
      holds('demands for a nonce', client.sent.rejections().length, nonces ? 2 : 0);
      return response;
    });
  }
}

async function tokenAlgorithm(tokenAlg, use, row) {
  const foreign = await use(oidcProvider({ tokenAlg }));
  const resource = await use(resourceServer(foreign));
  const client = await Oauth4webapi.connect(foreign.issuer, 'service', SERVICE);
  const key = await client.key();
  const { access_token: token } = await client.clientCredentials(key, INDICATOR);
  await row('GET', '200', () => client.fetch(token, key, `${resource.url}/protected`));
}

async function misuse(library, use, row) {
  const foreign = await use(oidcProvider());
  const stranger = await use(oidcProvider());
  const resource = await use(resourceServer(foreign));
  const client = await library.connect(foreign.issuer, 'service', SERVICE);
  const key = await client.key();
  const { access_token: token } = await client.clientCredentials(key, INDICATOR);
  const url = `${resource.url}/protected`;

  await row('a proof by another key', '401 invalid_token', async () =>
    client.fetch(token, await client.key(), url));
  await row('as Bearer', '401 invalid_token', () => client.fetch(token, undefined, url));
  await row('sent again as it was', '401 invalid_dpop_proof', async () => {
    holds('the first time', (await client.fetch(token, key, url)).status, 200);
    return client.sent.again();
  });
  await row('an opaque token', '401 invalid_token', async () => {
    const opaque = await client.clientCredentials(key);
    return client.fetch(opaque.access_token, key, url);
  });
  await row('of another issuer', '401 invalid_token', async () => {
    const other = await library.connect(stranger.issuer, 'service', SERVICE);
    const { access_token } = await other.clientCredentials(key, INDICATOR);
    return client.fetch(access_token, key, url);
  });
}
