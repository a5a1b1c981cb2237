// Services on their way from Bearer to DPoP, services that ask for more than a good token, and
// clients that know no more than where a service is.

import * as oauth from 'oauth4webapi';

import { Oauth4webapi } from './libraries.mjs';
import { INDICATOR, OPAQUE, oidcProvider, SERVICE } from './provider.mjs';
import { resourceServer } from './servers.mjs';
import { holds, scenario } from './table.mjs';

const SOFTWARE = ['oidc-provider', 'oauth4webapi'];
const INSECURE = { [oauth.allowInsecureRequests]: true };

export async function coexistence() {
  await scenario(SOFTWARE, '--allow-bearer', bearer);
  await scenario(SOFTWARE, '--report-only', reportOnly);
  await scenario(SOFTWARE, '--scopes', scopes);
  await scenario(SOFTWARE, '--metadata', metadata);
}

async function bearer(use, row) {
  const { issuer, introspection } = await use(oidcProvider());
  const resource = await use(resourceServer({ issuer }, { introspection, allowBearer: true }));
  const url = `${resource.url}/protected`;
  const { client, key } = await connect(issuer, 'service');
  const veteran = await connect(issuer, 'veteran');

  for (const [name, kind] of [['a JWT', INDICATOR], ['an opaque token', OPAQUE]]) {
    const { access_token: bound } = await client.clientCredentials(key, kind);
    const { access_token: unbound } = await veteran.client.clientCredentials(undefined, kind);
    await row(`${name}, bound, with its proof`, '200', async () => {
      const response = await client.fetch(bound, key, url);
      holds('jkt', (await response.clone().json()).jkt, await key.calculateThumbprint());
      return response;
    });
    await row(`${name}, bound to nothing, as Bearer`, '200', async () => {
      const response = await client.fetch(unbound, undefined, url);
      const { sub, jkt } = await response.clone().json();
      holds('claims', [sub, jkt], ['veteran', null]);
      return response;
    });
    await row(`${name}, bound, as Bearer`, 'bearer invalid_token, dpop', () =>
      challenges(() => client.fetch(bound, undefined, url)));
    await row(`${name}, bound to nothing, with a proof`, 'bearer, dpop invalid_token', () =>
      challenges(() => client.fetch(unbound, key, url)));
  }
  await row('no token', 'bearer, dpop', () => challenges(() => without(url)));
}

async function reportOnly(use, row) {
  const { issuer } = await use(oidcProvider());
  const resource = await use(resourceServer({ issuer }, {
    reportOnly: true, scopes: 'orders:write',
  }));
  const url = `${resource.url}/protected`;
  const { client, key } = await connect(issuer, 'service');
  const { access_token: token } = await client.clientCredentials(key, INDICATOR);
  const jktOf = async (response) => (await response.clone().json()).jkt;

  await row('a token without the scope', '200', async () => {
    const response = await client.fetch(token, key, url);
    holds('jkt', await jktOf(response), await key.calculateThumbprint());
    return response;
  });
  const rejected = [
    ['sent again as it was', () => client.sent.again()],
    ['a proof by another key', async () => client.fetch(token, await client.key(), url)],
    ['as Bearer', () => client.fetch(token, undefined, url)],
    ['no token', () => fetch(url)],
    ['no token that anyone could read', () => client.fetch('none', key, url)],
  ];
  for (const [name, attempt] of rejected) {
    await row(name, '200', async () => {
      const response = await attempt();
      holds('jkt', await jktOf(response), null);
      return response;
    });
  }
}

async function scopes(use, row) {
  const { issuer } = await use(oidcProvider());
  const required = 'orders:read orders:write';
  const resource = await use(resourceServer({ issuer }, { scopes: required }));
  const { client, key } = await connect(issuer, 'service');
  const visit = async (scope) => {
    const { access_token } = await client.clientCredentials(key, { ...INDICATOR, scope });
    return client.fetch(access_token, key, `${resource.url}/protected`);
  };
  await row('both', '200', () => visit(required));
  await row('one of them', '403 insufficient_scope', async () => {
    const [{ parameters }] = await challengesOf(() => visit('orders:read'));
    holds('scope', parameters.scope, required);
    return visit('orders:read');
  });
  await row('none', '403 insufficient_scope', () => visit(undefined));
}

async function metadata(use, row) {
  const { issuer } = await use(oidcProvider());
  const resource = await use(resourceServer({ issuer }, {
    audience: null, metadata: true, scopes: 'orders:read',
  }));
  const url = new URL(resource.url);
  await row('read from the well-known place', 'as configured', async () => {
    const response = await oauth.resourceDiscoveryRequest(url, INSECURE);
    const {
      authorization_servers, scopes_supported, dpop_bound_access_tokens_required, ...others
    } = await oauth.processResourceDiscoveryResponse(url, response);
    holds('authorization servers', authorization_servers, [issuer]);
    holds('scopes', scopes_supported, ['orders:read']);
    holds('bound tokens only', dpop_bound_access_tokens_required, true);
    holds('bearer methods', others.bearer_methods_supported, []);
    holds('ES256', others.dpop_signing_alg_values_supported.includes('ES256'), true);
    return 'as configured';
  });
  await row('by a client that knows the URL alone', '200', async () => {
    const [{ parameters }] = await challengesOf(() => without(`${url}protected`));
    const response = await fetch(parameters.resource_metadata);
    const found = await oauth.processResourceDiscoveryResponse(url, response);
    const { client, key } = await connect(found.authorization_servers[0], 'service');
    const { access_token } = await client.clientCredentials(key, {
      resource: found.resource, scope: found.scopes_supported.join(' '),
    });
    return client.fetch(access_token, key, `${url}protected`);
  });
  await row('of another resource', 'OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED', async () => {
    const response = await oauth.resourceDiscoveryRequest(url, INSECURE);
    const other = new URL('https://other.example.com');
    return oauth.processResourceDiscoveryResponse(other, response).catch(({ code }) => code);
  });
}

async function connect(issuer, clientId) {
  const client = await Oauth4webapi.connect(issuer, clientId, SERVICE);
  return { client, key: await client.key() };
}

/** A request without a token. */
async function without(url) {
  // What oauth4webapi reads challenges with needs a token that is sent.
  const options = { ...INSECURE, [oauth.customFetch]: (to) => fetch(to) };
  return oauth.protectedResourceRequest('-', 'GET', new URL(url), undefined, undefined, options);
}

/** The challenges of a rejection, as oauth4webapi reads them. */
async function challengesOf(attempt) {
  try {
    const { status } = await attempt();
    throw new Error(`${status} without a challenge`);
  } catch (error) {
    if (error.code !== 'OAUTH_WWW_AUTHENTICATE_CHALLENGE') throw error;
    return error.cause;
  }
}

/** The schemes of a rejection, and the error of each. */
async function challenges(attempt) {
  const read = await challengesOf(attempt);
  return read.map(({ scheme, parameters: { error } }) => [scheme, error].filter(Boolean).join(' '))
    .join(', ');
}
