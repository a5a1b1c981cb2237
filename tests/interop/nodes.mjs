// Two nodes behind nginx. With a replay store each: nonces of one node, a shared secret of nonces, and
// what affinity changes. With one replay store in Redis: no affinity.

import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import * as oauth from 'oauth4webapi';

import { Oauth4webapi } from './libraries.mjs';
import {
  authorizationServer, freePort, nginx, ourClient, redisServer, resourceServer,
} from './servers.mjs';
import { holds, scenario } from './table.mjs';

const SOFTWARE = ['nginx', 'oauth4webapi'];
const WITH_REDIS = [...SOFTWARE, 'redis-server'];
/** What a client can write before its token. The layer accepts all of these. */
const SPELLINGS = ['DPoP ', 'dpop ', 'dPoP   ', 'DPOP  '];

export async function nodes() {
  await scenario(SOFTWARE, 'two nodes, a secret each, affinity', ownSecrets);
  // Each node has a replay store of its own.
  for (const [name, options, tried] of [
    ['no affinity', { affinity: false }, rejected],
    ['no affinity, --insecure-one-use-per-node', { affinity: false, insecure: true }, oncePerNode],
    ['affinity', { affinity: true }, once],
  ]) {
    await scenario(SOFTWARE, `two nodes, a shared secret, ${name}`, async (use, row) => {
      const nonceSecretFile = await use(secretFile());
      const { affinity, insecure: insecureOneUsePerNode } = options;
      const setting = await behindNginx(use, {
        affinity, nonceSecretFile: nonceSecretFile.path, insecureOneUsePerNode,
      });
      await tried(setting, row);
    });
  }
  await scenario(WITH_REDIS, 'two nodes, a shared secret, one Redis, no affinity', sharedStore);
}

/** nginx with the recipe of the guide, in front of two nodes. */
async function behindNginx(use, { affinity, ...options }) {
  const { issuer } = await use(authorizationServer());
  const port = await freePort();
  const publicUrl = `http://127.0.0.1:${port}`;
  const servers = [];
  for (let node = 0; node < 2; node += 1) {
    servers.push(await use(resourceServer({ issuer }, { publicUrl, ...options })));
  }
  const addresses = { '10.0.0.1:8080': servers[0].url, '10.0.0.2:8080': servers[1].url };
  await use(nginx('affinity', port, addresses, {
    documentedIn: 'docs/guide/several-nodes.md',
    // Each request goes to the other node, then.
    without: affinity ? undefined : 'hash $dpop_token consistent;',
  }));
  return { issuer, servers, url: `${publicUrl}/protected` };
}

/** A client with a key and a token of its own. */
async function holder({ issuer, url }) {
  const client = await Oauth4webapi.connect(issuer, 'service', { secret: 'service-secret' });
  const key = await client.key();
  const { access_token: token } = await client.clientCredentials(key);
  let authorization = `DPoP ${token}`;
  const sent = client.options[oauth.customFetch];
  client.options[oauth.customFetch] = (url, init) =>
    sent(url, { ...init, headers: { ...init.headers, authorization } });
  return {
    /** A request with a new proof, and the token under one spelling of the scheme. */
    visit: (scheme = 'DPoP ') => {
      authorization = scheme + token;
      return client.fetch(token, key, url);
    },
    /** The last request once more, with its token under one spelling of the scheme. */
    replay: (scheme = 'DPoP ') => {
      const { dpop } = client.sent.last().headers;
      return fetch(url, { headers: { dpop, authorization: scheme + token } });
    },
    demanded: (wanted) =>
      holds('demands for a nonce', client.sent.rejections().map(({ status }) => status), wanted),
  };
}

const nodeOf = (response) => response.headers.get('x-node');

/** The first use of a proof, and then a replay of it. */
async function replayed(client, scheme) {
  holds('the first use', (await client.visit()).status, 200);
  return client.replay(scheme);
}

async function ownSecrets(use, row) {
  const setting = await behindNginx(use, { affinity: true, nonces: true });
  await row('our client', '200 200 200', () => ourVisits(setting));
  const holders = new Map();
  await row('each token at one node, however its scheme is written', '2 nodes', async () => {
    // More, in case that chance sends the first ones to one node.
    for (let count = 0; count < 8 || (holders.size < 2 && count < 64); count += 1) {
      const client = await holder(setting);
      const places = new Set();
      for (const scheme of SPELLINGS) {
        const response = await client.visit(scheme);
        holds('status', response.status, 200);
        places.add(nodeOf(response));
      }
      client.demanded([401]);
      holds('nodes of one token', places.size, 1);
      holders.set([...places][0], client);
    }
    return `${holders.size} nodes`;
  });
  const [[place, client], [, other]] = holders;
  for (const scheme of SPELLINGS) {
    await row(`a replay under "${scheme}"`, '401 invalid_dpop_proof', () =>
      replayed(client, scheme));
  }
  const down = setting.servers.find(({ url }) => new URL(url).host === place);
  await row('a replay after its node went down', '401 use_dpop_nonce', async () => {
    holds('the first use', (await client.visit()).status, 200);
    await down.stop();
    return client.replay();
  });
  await row('a request of the same client then', '200', () => client.visit());
  await row('a request of a client of the other node', '200', async () => {
    const response = await other.visit();
    other.demanded([401]);
    return response;
  });
}

/** Each node accepts only its own nonces, and a client that tries twice meets both nodes. */
async function rejected(setting, row) {
  const client = await holder(setting);
  for (const which of ['first', 'second']) {
    await row(`the ${which} request`, '401 use_dpop_nonce', () => client.visit());
  }
  client.demanded([401, 401, 401, 401]);
  await row('our client, which tries three times', '401', () => ourVisits(setting, 1));
}

/** What the option's name says. */
async function oncePerNode(setting, row) {
  const client = await holder(setting);
  await row('each node in turn', '200', async () => {
    const responses = [await client.visit(), await client.visit(), await client.visit()];
    client.demanded([401]);
    holds('statuses', responses.map(({ status }) => status), [200, 200, 200]);
    holds('nodes', new Set(responses.map(nodeOf)).size, 2);
    return responses[0];
  });
  await row('our client', '200 200 200', () => ourVisits(setting));
  await row('a replay at the other node', '200', () => replayed(client));
  for (const node of ['first', 'other']) {
    await row(`another one at the ${node} node`, '401 invalid_dpop_proof', () => client.replay());
  }
}

async function once(setting, row) {
  const client = await holder(setting);
  await row('a request', '200', async () => {
    const response = await client.visit();
    client.demanded([401]);
    return response;
  });
  await row('our client', '200 200 200', () => ourVisits(setting));
  await row('a replay', '401 invalid_dpop_proof', () => replayed(client));
}

/** Each node accepts the nonces of both, and rejects what the other has accepted. */
async function sharedStore(use, row) {
  const nonceSecretFile = await use(secretFile());
  const redis = await use(redisServer());
  const setting = await behindNginx(use, {
    affinity: false, nonceSecretFile: nonceSecretFile.path, redis: redis.url,
  });
  const client = await holder(setting);
  await row('each node in turn', '200', async () => {
    const responses = [await client.visit(), await client.visit(), await client.visit()];
    client.demanded([401]);
    holds('statuses', responses.map(({ status }) => status), [200, 200, 200]);
    holds('nodes', new Set(responses.map(nodeOf)).size, 2);
    return responses[0];
  });
  await row('our client', '200 200 200', () => ourVisits(setting));
  const used = await client.visit();
  for (const which of ['other', 'same']) {
    await row(`a replay on the ${which} node`, '401 invalid_dpop_proof', async () => {
      holds('the first use', used.status, 200);
      const response = await client.replay();
      holds('on the same node', nodeOf(response) === nodeOf(used), which === 'same');
      return response;
    });
  }
}

/** The statuses of our client's calls. */
async function ourVisits({ issuer, url }, count = 3) {
  const { calls } = await ourClient({ issuer, resource: url, count });
  return calls.map(({ status }) => status).join(' ');
}

/** The secret of the nonces of both nodes. */
async function secretFile() {
  const folder = await mkdtemp(join(tmpdir(), 'interop-'));
  const path = join(folder, 'nonce-secrets');
  await writeFile(path, `${randomBytes(32).toString('hex')}\n`, { mode: 0o600 });
  return { path, stop: () => rm(folder, { recursive: true }) };
}
