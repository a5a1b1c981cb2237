// oidc-provider as the authorization server, and our resource server behind it.

import { randomBytes } from 'node:crypto';

import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';

import { Oauth4webapi, OpenidClient } from './libraries.mjs';
import { AUDIENCE, resourceServer, serve } from './servers.mjs';
import { holds, scenario } from './table.mjs';

export const PROOF_ALGS = ['ES256', 'ES384', 'PS256', 'RS256', 'Ed25519', 'EdDSA'];
const TOKEN_ALGS = ['ES256', 'ES384', 'PS256', 'RS256', 'Ed25519', 'EdDSA'];
const SERVICE = { secret: 'service-secret' };
/** What a client asks for to get a JWT for our resource server instead of an opaque token. */
const INDICATOR = { resource: AUDIENCE, scope: 'orders:read' };

/** Starts oidc-provider with one confidential client, for one API. */
export async function oidcProvider({
  dpop = true, nonces = false, proofAlgs = PROOF_ALGS, tokenAlg = 'ES256',
} = {}) {
  const { privateKey } = await generateKeyPair(tokenAlg, { extractable: true });
  const key = { ...(await exportJWK(privateKey)), alg: tokenAlg, use: 'sig', kid: 'provider' };
  const server = await serve((issuer) => new Provider(issuer, {
    clients: [{
      client_id: 'service',
      client_secret: SERVICE.secret,
      ...(dpop ? { dpop_bound_access_tokens: true } : {}),
      grant_types: ['client_credentials'],
      // Another algorithm than the default would need another key.
      id_token_signed_response_alg: tokenAlg,
      redirect_uris: [],
      response_types: [],
    }],
    cookies: { keys: [randomBytes(32).toString('hex')] },
    enabledJWA: { dPoPSigningAlgValues: proofAlgs, idTokenSigningAlgValues: TOKEN_ALGS },
    features: {
      clientCredentials: { enabled: true },
      dPoP: { enabled: dpop, nonceSecret: randomBytes(32), requireNonce: () => nonces },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({
          accessTokenFormat: 'jwt',
          accessTokenTTL: 300,
          audience: AUDIENCE,
          jwt: { sign: { alg: tokenAlg } },
          scope: INDICATOR.scope,
        }),
      },
    },
    jwks: { keys: [key] },
    scopes: [INDICATOR.scope],
    ttl: { ClientCredentials: 300 },
  }).callback());
  return { ...server, issuer: server.url, jwks: `${server.url}/jwks` };
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
      holds('demands for a nonce', client.sent.refusals().length, nonces ? 2 : 0);
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
