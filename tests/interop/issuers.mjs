// oidc-provider as an issuer that is asked over the network: for its keys, while they change and
// while it is unreachable, and about opaque tokens.

import { EventEmitter, once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';

import { Oauth4webapi } from './libraries.mjs';
import {
  INDICATOR, OPAQUE, OPAQUE_ELSEWHERE, oidcProvider, SERVICE, signingKey,
} from './provider.mjs';
import { AUDIENCE, resourceServer } from './servers.mjs';
import { holds, scenario, outcomeOf } from './table.mjs';

const SOFTWARE = ['oidc-provider', 'oauth4webapi'];
/** Milliseconds in which what must come about by itself comes about, if ever. */
const PATIENCE = 30_000;

export async function issuers() {
  await scenario(SOFTWARE, 'keys discovered', discovered);
  await scenario(SOFTWARE, 'opaque tokens', opaque);
  await scenario(SOFTWARE, 'JWTs and opaque tokens', both);
  await scenario(SOFTWARE, 'rotation under load', rotationUnderLoad);
  await scenario(SOFTWARE, 'rotation without overlap', rotationWithoutOverlap);
  await scenario(SOFTWARE, 'outage', outage);
  await scenario(SOFTWARE, 'an issuer that starts later', laterIssuer);
}

async function discovered(use, row) {
  const foreign = await use(oidcProvider());
  const { visit, client, key } = await visitor(foreign, await use(discovering(foreign)));
  await row('a JWT', '200', () => visit(INDICATOR));
  await row('a proof by another key', '401 invalid_token', async () =>
    visit(INDICATOR, { proofKey: await client.key() }));
  await row('an opaque token', '401 invalid_token', () => visit(OPAQUE));
  await row('of another issuer', '401 invalid_token', async () => {
    const stranger = await visitor(await use(oidcProvider()));
    return visit(INDICATOR, { token: await stranger.token(INDICATOR, key) });
  });
}

async function opaque(use, row) {
  const { issuer, introspection } = await use(oidcProvider());
  const resource = await use(resourceServer({}, { introspection }));
  const { visit, token, client, key } = await visitor({ issuer }, resource);
  const jkt = await key.calculateThumbprint();

  await row('what is said of them', 'DPoP', async () => {
    const asking = await Oauth4webapi.connect(issuer, introspection.id, SERVICE);
    const { active, token_type, cnf, aud, iss } = await asking.introspect(await token(OPAQUE));
    holds('the response', [active, cnf, aud, iss], [true, { jkt }, AUDIENCE, issuer]);
    return token_type;
  });
  await row('GET', '200', async () => {
    const response = await visit(OPAQUE);
    const claims = await response.clone().json();
    holds('claims', [claims.sub, claims.jkt], ['service', jkt]);
    return response;
  });
  await row('without aud', '200', () => visit({}));
  await row('for another API', '401 invalid_token', () => visit(OPAQUE_ELSEWHERE));
  await row('a proof by another key', '401 invalid_token', async () =>
    visit(OPAQUE, { proofKey: await client.key() }));
  await row('bound to nothing', '401 invalid_token', async () => {
    const veteran = await Oauth4webapi.connect(issuer, 'veteran', SERVICE);
    const { access_token } = await veteran.clientCredentials(undefined, OPAQUE);
    return visit(OPAQUE, { token: access_token });
  });
  await row('as Bearer', '401 invalid_token', async () =>
    client.fetch(await token(OPAQUE), undefined, `${resource.url}/protected`));
  // oidc-provider does not say that it is not active, but 400: it does not introspect JWTs.
  await row('a JWT', '401 invalid_token', () => visit(INDICATOR));
  await row('made up', '401 invalid_token', () => visit(OPAQUE, { token: 'A'.repeat(43) }));
  await row('sent again as it was', '401 invalid_dpop_proof', async () => {
    holds('the first time', (await visit(OPAQUE)).status, 200);
    return client.sent.again();
  });
  await row('revoked before it was seen', '401 invalid_token', async () => {
    const revoked = await token(OPAQUE);
    await client.revoke(revoked);
    return visit(OPAQUE, { token: revoked });
  });
  await row('revoked after it was seen, before long', '401 invalid_token', async () => {
    const revoked = await token(OPAQUE);
    holds('until then', (await visit(OPAQUE, { token: revoked })).status, 200);
    await client.revoke(revoked);
    return eventually('401 invalid_token', () => visit(OPAQUE, { token: revoked }));
  });

  const wrong = { ...introspection, secret: 'wrong' };
  const denied = await visitor({ issuer }, await use(resourceServer({}, { introspection: wrong })));
  await row('our own secret is wrong', '503', () => denied.visit(OPAQUE));
}

async function both(use, row) {
  const foreign = await use(oidcProvider());
  const resource = await use(discovering(foreign, { introspection: foreign.introspection }));
  const { visit, client } = await visitor(foreign, resource);
  for (const [name, kind] of [['a JWT', INDICATOR], ['an opaque token', OPAQUE]]) {
    await row(name, '200', () => visit(kind));
    await row(`${name}, a proof by another key`, '401 invalid_token', async () =>
      visit(kind, { proofKey: await client.key() }));
  }
  await row('a JWT of another issuer', '401 invalid_token', async () => {
    const stranger = await visitor(await use(oidcProvider()));
    const { token, key } = stranger;
    return visit(INDICATOR, { token: await token(INDICATOR), proofKey: key });
  });
}

async function rotationUnderLoad(use, row) {
  const foreign = await use(oidcProvider());
  const { visit, token } = await visitor(foreign, await use(discovering(foreign)));
  const old = foreign.key;
  const [next, last] = [await signingKey('next'), await signingKey('last')];
  const byOld = await token(INDICATOR);
  const visitors = await use(load(8, visit));

  const steps = [
    ['one key', [old]],
    ['the next is published', [old, next]],
    ['the next signs', [next, old]],
    ['the old one is gone', [next]],
  ];
  for (const [name, keys] of steps) {
    await row(`${name}, 40 requests`, '200', () => {
      foreign.rotate(keys);
      return visitors.after(40);
    });
  }
  await visitors.stop();
  await row('all requests under load', '200', () => visitors.after(0));

  // What makes the server fetch the keys again, once the last such fetch is five seconds ago.
  foreign.rotate([last]);
  await row('a third, without notice, before long', '200', () =>
    eventually('200', () => visit(INDICATOR)));
  await row('a token by the one that is gone', '401 invalid_token', () =>
    visit(INDICATOR, { token: byOld }));
}

async function rotationWithoutOverlap(use, row) {
  const foreign = await use(oidcProvider());
  const { visit, token } = await visitor(foreign, await use(discovering(foreign)));
  const [seen, unseen] = [await token(INDICATOR), await token(INDICATOR)];
  await row('one key', '200', () => visit(INDICATOR, { token: seen }));
  foreign.rotate([await signingKey('next')]);
  await row('a token by the old key, not fetched again yet', '200', () =>
    visit(INDICATOR, { token: seen }));
  await row('the first by the next key', '200', () => visit(INDICATOR));
  await row('a token by the old key, seen before', '401 invalid_token', () =>
    visit(INDICATOR, { token: seen }));
  await row('a token by the old key, not seen before', '401 invalid_token', () =>
    visit(INDICATOR, { token: unseen }));
}

async function outage(use, row) {
  const foreign = await use(oidcProvider());
  const resource = await use(discovering(foreign, { introspection: foreign.introspection }));
  const { visit, token } = await visitor(foreign, resource);
  const seen = await token(INDICATOR);
  const [unseen, opaqueToken] = [await token(INDICATOR), await token(OPAQUE)];
  await row('before, a JWT', '200', () => visit(INDICATOR, { token: seen }));
  await row('before, an opaque token', '200', () => visit(OPAQUE));

  foreign.rotate([await signingKey('next'), foreign.key]);
  const byNext = await token(INDICATOR);
  await foreign.stop();
  await row('a JWT that was seen before', '200', () => visit(INDICATOR, { token: seen }));
  await row('a JWT that was not', '200', () => visit(INDICATOR, { token: unseen }));
  await row('a JWT by a key that was not fetched yet', '503', () =>
    visit(INDICATOR, { token: byNext }));
  await row('an opaque token', '503', () => visit(OPAQUE, { token: opaqueToken }));

  await foreign.resume();
  await row('after it, the opaque token', '200', () => visit(OPAQUE, { token: opaqueToken }));
  await row('after it, the JWT by the next key, before long', '200', () =>
    eventually('200', () => visit(INDICATOR, { token: byNext })));
  await row('after it, JWTs as usual', '200', () => visit(INDICATOR, { token: seen }));
}

/** A resource server that is started first. */
async function laterIssuer(use, row) {
  const foreign = await use(oidcProvider());
  // Each request is recorded, and its connection closed.
  const asked = new EventEmitter();
  foreign.respondWith((request) => {
    request.socket.destroy();
    asked.emit('asked');
  });
  const heard = once(asked, 'asked');
  const starting = discovering(foreign);
  await heard;
  foreign.rotate([foreign.key]);
  const { visit } = await visitor(foreign, await use(starting));
  await row('a JWT', '200', () => visit(INDICATOR));
}

/** Our resource server, configured with the name of an issuer only. */
function discovering({ issuer }, options) {
  return resourceServer({ issuer }, options);
}

/** A client of oidc-provider with a key, and what it needs to visit our resource server. */
async function visitor({ issuer }, resource) {
  const client = await Oauth4webapi.connect(issuer, 'service', SERVICE);
  const key = await client.key();
  const token = async (parameters, by = key) =>
    (await client.clientCredentials(by, parameters)).access_token;
  /** With a token, by default a new one for these parameters, and a proof. */
  const visit = async (parameters, { token: presented, proofKey = key } = {}) =>
    client.fetch(presented ?? await token(parameters), proofKey, `${resource.url}/protected`);
  return { client, key, token, visit };
}

/** Clients that send the next request as soon as they have a response, each with a new token. */
function load(visitors, visit) {
  const completed = new EventEmitter();
  const outcomes = [];
  let going = true;
  const coming = Array.from({ length: visitors }, async () => {
    while (going) {
      outcomes.push(await outcomeOf(() => visit(INDICATOR)).catch((error) => `${error}`));
      completed.emit('one more');
    }
  });
  /** The distinct outcomes until now, after this many more. */
  const after = async (count) => {
    const enough = outcomes.length + count;
    while (outcomes.length < enough) await once(completed, 'one more');
    return [...new Set(outcomes)].join(', ');
  };
  const stop = async () => {
    going = false;
    await Promise.all(coming);
  };
  return { after, stop };
}

/** Tries until the outcome is the wanted one, but not for ever. */
async function eventually(wanted, attempt) {
  const end = Date.now() + PATIENCE;
  for (;;) {
    const outcome = await outcomeOf(attempt);
    if (outcome === wanted || Date.now() > end) return outcome;
    await delay(200);
  }
}
