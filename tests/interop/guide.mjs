// The configurations of proxies in docs/guide, each in its own proxy, which is real: nginx and HAProxy of Debian, the
// others of PyPI (guide.txt). The text is that of the page, but for ports, addresses and the paths of files.

import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

import * as oauth from 'oauth4webapi';

import { application, holder, received, rejectedBefore } from './proxies.mjs';
import { AUDIENCE, freePort, listenAt, resourceServer } from './servers.mjs';
import { conclude, expect, holds, scenario } from './table.mjs';

const NAME = 'https://api.example.com';
const PREFIX = 'https://example.com/orders-api';
const NAMES = ['api.example.com', 'api.example.org', 'example.com'];

/** The blocks of a page: their languages, their first lines, and their texts. */
async function blocks(page) {
  const text = await readFile(new URL(`../../docs/guide/${page}.md`, import.meta.url), 'utf8');
  return [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, block]) => ({
    language, block, title: block.split('\n')[0],
  }));
}

/** The one block in a language, or with a first line. */
async function block(page, language, title = '') {
  const found = (await blocks(page)).filter((one) =>
    one.language === language && one.title.includes(title));
  if (found.length !== 1) throw new Error(`${page}: ${found.length} blocks ${language} ${title}`);
  return found[0].block;
}

/** A text with other values. Each must be in it. */
function adapted(text, values) {
  let result = text;
  for (const [from, to] of Object.entries(values)) {
    if (!result.includes(from)) throw new Error(`no ${from} in ${text}`);
    result = result.replaceAll(from, to);
  }
  return result;
}

/** A certificate of its own making for the names. */
const tls = (() => {
  const { stdout, status } = spawnSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', '/CN=api.example.com', '-addext', `subjectAltName=${NAMES.map((name) => `DNS:${name}`)}`,
    '-keyout', '-',
  ]);
  if (status !== 0) throw new Error('openssl makes no certificate');
  const [key] = /-----BEGIN PRIVATE KEY-----.*-----END PRIVATE KEY-----\n/s.exec(stdout);
  const [certificate] = /-----BEGIN CERTIFICATE-----.*-----END CERTIFICATE-----\n/s.exec(stdout);
  return { key, certificate };
})();

/** A folder with the certificate and these files. */
async function folderWith(files) {
  const folder = await mkdtemp(join(tmpdir(), 'interop-'));
  const pem = { 'tls.crt': tls.certificate, 'tls.key': tls.key, 'tls.pem': tls.certificate + tls.key };
  for (const [name, text] of Object.entries({ ...pem, ...files })) {
    await mkdir(join(folder, name, '..'), { recursive: true });
    await writeFile(join(folder, name), text.replaceAll('/etc/proxy/', `${folder}/`));
  }
  return folder;
}

const programs = process.env.INTEROP_PROXIES;

/** How each is started at a port, in front of the service at a host and port. */
const PROXIES = {
  async nginx(port, service) {
    const documented = adapted(await block('proxies', 'nginx'), {
      '127.0.0.1:8080': service, 'listen 443': `listen 127.0.0.1:${port}`,
    });
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
      .map((one) => `${one}_temp_path ${one};`).join('\n');
    const folder = await folderWith({
      'nginx.conf': `pid nginx.pid; master_process off; events {}\nhttp { access_log off; ${temporary}\n${documented} }`,
    });
    const parameters = ['-p', folder, '-e', 'stderr', '-c', 'nginx.conf', '-g', 'daemon off;'];
    return listenAt(port, folder, 'nginx', parameters);
  },

  async caddy(port, service) {
    const documented = adapted(await block('proxies', 'caddyfile'), {
      '127.0.0.1:8080': service,
      'api.example.com, api.example.org {': `https://api.example.com:${port}, https://api.example.org:${port} {\n${CADDY_TLS}`,
      '\nexample.com {': `\nhttps://example.com:${port} {\n${CADDY_TLS}`,
    });
    return caddy(port, documented);
  },

  async traefik(port, service) {
    const dynamic = adapted(await block('proxies', 'yaml', '# dynamic/'), { '127.0.0.1:8080': service });
    return traefik(port, await block('proxies', 'yaml', '# traefik.yaml'), dynamic);
  },

  async envoy(port, service) {
    return envoy(port, await block('proxies', 'yaml', '# envoy.yaml'), service);
  },

  async haproxy(port, service) {
    const folder = await folderWith({
      'haproxy.cfg': adapted(await block('proxies', 'haproxy'), {
        '127.0.0.1:8080': service, 'bind :443': `bind 127.0.0.1:${port}`,
      }),
    });
    return listenAt(port, folder, 'haproxy', ['-db', '-q', '-f', join(folder, 'haproxy.cfg')]);
  },
};

async function caddy(port, documented) {
  const folder = await folderWith({
    Caddyfile: documented.replace('{\n', '{\n\tadmin off\n\tauto_https off\n'),
  });
  const parameters = ['run', '--adapter', 'caddyfile', '--config', join(folder, 'Caddyfile')];
  return listenAt(port, folder, join(programs, 'caddy'), parameters);
}

async function traefik(port, statics, dynamic) {
  const folder = await folderWith({
    'traefik.yaml': adapted(statics, { ':443': `127.0.0.1:${port}` }),
    'dynamic/it.yaml': dynamic,
  });
  const parameters = [`--configFile=${join(folder, 'traefik.yaml')}`];
  const proxy = await listenAt(port, folder, join(programs, 'traefik'), parameters);
  // It listens before it has read its dynamic configuration, and has another certificate until then.
  while (!(await sender(port)('https://example.com/').catch(() => null))) await delay(20);
  return proxy;
}

async function envoy(port, documented, service) {
  const [host, number] = service.split(':');
  const folder = await folderWith({
    'envoy.yaml': adapted(documented, {
      'address: 0.0.0.0, port_value: 443': `address: 127.0.0.1, port_value: ${port}`,
      'address: 127.0.0.1, port_value: 8080': `address: ${host}, port_value: ${number}`,
    }),
  });
  const parameters = ['-c', join(folder, 'envoy.yaml'), '--use-dynamic-base-id', '--concurrency', '1', '-l', 'warn'];
  return listenAt(port, folder, join(programs, 'envoy'), parameters);
}

const CADDY_TLS = '\ttls /etc/proxy/tls.crt /etc/proxy/tls.key\n';

/** A request to a URL of the proxy at a port, on a connection of its own. */
function sender(port) {
  return async (target, { method = 'GET', headers = {}, body } = {}) => {
    const url = new URL(target);
    const request = httpsRequest({
      host: '127.0.0.1', port, servername: url.hostname, ca: tls.certificate, agent: false,
      // As it is: `URL` leaves `%2F` and `//` alone.
      path: url.pathname + url.search, method, headers: { host: url.host, ...headers },
    });
    request.end(body);
    const [response] = await once(request, 'response');
    const parts = [];
    for await (const part of response) parts.push(part);
    const fields = Object.entries(response.headersDistinct).flatMap(([name, values]) =>
      values.map((value) => [name, value]));
    return new Response(Buffer.concat(parts), { status: response.statusCode, headers: fields });
  };
}

async function overHttp2(port, target, headers) {
  const { hostname, pathname } = new URL(target);
  const session = connectHttp2(`https://127.0.0.1:${port}`, { servername: hostname, ca: tls.certificate });
  try {
    const { authorization, dpop } = headers;
    const stream = session.request({ ':authority': hostname, ':path': pathname, authorization, dpop });
    const [response] = await once(stream, 'response');
    return `${response[':status']}`;
  } finally {
    session.close();
  }
}

/** One proxy, in front of our resource server. */
async function behind(use, name, publicUrl, options) {
  const client = await holder(use);
  const server = await use(resourceServer(client, { publicUrl, ...options }));
  const port = await freePort();
  await use(PROXIES[name](port, new URL(server.url).host));
  const by = sender(port);
  const visit = (url, more) => client.visit(url, { by, ...more });
  return { client, port, by, visit };
}

async function served(use, row, name, publicUrl, other) {
  const { client, port, by, visit } = await behind(use, name, publicUrl);
  const url = `${publicUrl}/protected`;
  await row('no token', '401', async () => {
    const response = await by(url);
    holds('challenge', response.headers.get('www-authenticate')?.startsWith('DPoP algs="'), true);
    return response;
  });
  await row('GET', '200', () => visit(url));
  await row('POST', '200', () => visit(url, { method: 'POST', body: 'one' }));
  for (const path of ['/a%2Fb', '//c/~d', '/e%20f?page=2&of=%2F', '/g%3Bh;i=1', '/j%25k']) {
    // Traefik rejects this if a middleware has changed the path.
    const wanted = name === 'traefik' && publicUrl === PREFIX && path.includes('//') ? '400' : '200';
    await row(`GET /protected${path}`, wanted, () => visit(url + path));
  }
  await row('a token of 28 KiB', '200', () =>
    visit(url, { claims: { roles: 'x'.repeat(21_000) } }));
  await row('HTTP/2', '200', async () => overHttp2(port, url, await client.credentials(url)));
  await row('sent again as it was', '401 invalid_dpop_proof', async () => {
    const headers = await client.credentials(url);
    holds('the first time', (await by(url, { headers })).status, 200);
    return by(url, { headers });
  });
  const elsewhere = `${other}/protected`;
  await row('at a URL that is not configured', '401 invalid_dpop_proof', () => visit(elsewhere));
  for (const field of ['Forwarded', 'X-Forwarded-Host', 'X-Forwarded-Prefix', 'X-Original-URI']) {
    await row(`a proof for another URL, with ${field}`, '401 invalid_dpop_proof', () => {
      const { hostname, pathname } = new URL(url);
      const value = { Forwarded: `host=${hostname}`, 'X-Forwarded-Host': hostname }[field] ?? pathname;
      return visit(elsewhere, { signed: elsewhere, headers: { [field]: value } });
    });
  }
}

async function anotherName(use, row, name) {
  const { visit } = await behind(use, name, 'https://api.example.org');
  await row('GET', '200', () => visit('https://api.example.org/protected'));
  await row('GET at the first name', '401 invalid_dpop_proof', () => visit(`${NAME}/protected`));
}

async function nonces(use, row, name) {
  const { client, by, visit } = await behind(use, name, NAME, { nonces: true });
  await nonceRows(row, client, by, visit, `${NAME}/protected`);
}

async function nonceRows(row, client, by, visit, url) {
  await row('the demand', '401 use_dpop_nonce', async () => {
    const response = await by(url, { headers: await client.credentials(url) });
    holds('DPoP-Nonce', response.headers.get('dpop-nonce')?.length > 0, true);
    holds('Cache-Control', response.headers.get('cache-control'), 'no-store');
    return response;
  });
  await row('met', '200', async () => {
    try {
      return await visit(url);
    } catch (error) {
      if (!oauth.isDPoPNonceError(error)) throw error;
      return visit(url);
    }
  });
}

/** A service that hangs up on each second request of a connection, and counts requests. */
async function hangsUp() {
  let count = 0;
  const server = createServer((request, response) => {
    count += 1;
    if (request.url === '/good') response.end('good');
    else request.socket.destroy();
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const stop = async () => {
    server.close();
    server.closeAllConnections();
    await once(server, 'close');
  };
  return { address: `127.0.0.1:${server.address().port}`, count: () => count, stop };
}

/** Go's HTTP client sends a request again if a connection that was used before is closed. */
const GO = ['caddy', 'traefik'];

/** How often the service sees a request after which it hangs up. */
async function sentOnce(use, row, name) {
  const service = await use(hangsUp());
  const port = await freePort();
  await use(PROXIES[name](port, service.address));
  const by = sender(port);
  const bad = name === 'envoy' ? 503 : 502;
  await row('the service hangs up', `${bad}`, async () => {
    const response = await by(`${NAME}/bad`);
    holds('requests', service.count(), 1);
    return response;
  });
  const times = GO.includes(name) ? '2' : '1';
  await row('the service hangs up, after another request on the same connection', times, async () => {
    holds('good', (await by(`${NAME}/good`)).status, 200);
    const before = service.count();
    holds('bad', (await by(`${NAME}/bad`)).status, bad);
    return `${service.count() - before}`;
  });
}


/** How each is started at a port, in front of an application, of which it asks `auth`. */
const ASKING = {
  async caddy(port, application, auth) {
    const documented = adapted(await block('forward-authentication', 'caddyfile'), {
      '127.0.0.1:3000': application,
      '127.0.0.1:9001': auth,
      'api.example.com {': `https://api.example.com:${port} {\n${CADDY_TLS}`,
    });
    return caddy(port, documented);
  },

  async traefik(port, application, auth) {
    const page = 'forward-authentication';
    const entryPoint = (await block(page, 'yaml', '# traefik.yaml')).replace(/^#.*\n/, '');
    const statics = (await block('proxies', 'yaml', '# traefik.yaml')).replace(/^    http:\n(      .*\n)+/m, entryPoint);
    const dynamic = adapted(await block(page, 'yaml', '# dynamic/'), {
      '127.0.0.1:3000': application, '127.0.0.1:9001': auth,
    });
    return traefik(port, statics, dynamic);
  },

  envoy: (port, application, auth) => asking('gRPC', port, application, auth),

  'envoy-http': (port, application, auth) => asking('HTTP', port, application, auth),

  /** The controller was not tried. These are the directives that its template writes for the annotations of the page. */
  async 'ingress-nginx'(port, application, auth) {
    const [annotations] = /annotations:\n.*?(?=spec:)/s.exec(await block('forward-authentication', 'yaml', '# kubernetes/'));
    const [, fields] = /auth-response-headers: (.*)/.exec(annotations);
    const set = fields.split(', ').map((field, i) => `
      auth_request_set $authHeader${i} $upstream_http_${field.toLowerCase().replaceAll('-', '_')};
      proxy_set_header '${field}' $authHeader${i};`).join('');
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((one) => `${one}_temp_path ${one};`).join(' ');
    const folder = await folderWith({
      'nginx.conf': `pid nginx.pid; master_process off; events {}
http { access_log off; ${temporary} large_client_header_buffers 4 48k;
  server {
    listen 127.0.0.1:${port} ssl default_server;
    ssl_certificate /etc/proxy/tls.crt; ssl_certificate_key /etc/proxy/tls.key;
    location = /_external-auth-Lw-Prefix {
      internal;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header X-Forwarded-Proto "";
      proxy_set_header Host dpop-gateway.default.svc.cluster.local;
      proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
      proxy_set_header X-Original-Method $request_method;
      proxy_set_header X-Sent-From "nginx-ingress-controller";
      proxy_set_header X-Auth-Request-Redirect $request_uri;
      proxy_pass http://${auth}/;
    }
    location / {
      auth_request /_external-auth-Lw-Prefix;${set}
      proxy_next_upstream off;
      proxy_pass http://${application};
    }
  } }`,
    });
    const parameters = ['-p', folder, '-e', 'stderr', '-c', 'nginx.conf', '-g', 'daemon off;'];
    return listenAt(port, folder, 'nginx', parameters);
  },
};

/** Envoy asks over gRPC or over HTTP. */
async function asking(how, port, application, auth) {
  const page = 'forward-authentication';
  const documented = await block('proxies', 'yaml', '# envoy.yaml');
  const filters = await block(page, 'yaml', `# envoy.yaml, filters for ${how}`);
  const clusters = await block(page, 'yaml', `# envoy.yaml, clusters for ${how}`);
  const indented = (text, depth) => text.replace(/^/gm, ' '.repeat(depth)).trimEnd() + '\n';
  const [host, number] = auth.split(':');
  const all = documented
    .replace(/^ +http_filters:\n.*?(?=^ +route_config)/ms, indented(filters, 16))
    + adapted(indented(clusters, 4), { '127.0.0.1, port_value: 9001': `${host}, port_value: ${number}` });
  return envoy(port, all, application);
}

const ALIASES = [
  'X-Auth-Subject', 'x-auth-subject', 'X_Auth_Subject', 'X-Auth_Subject', 'X.Auth.Subject',
];

/** `dpop-gateway` with the configuration of the page, and with these lines in `[dpop]` and at the end. */
async function authorizer({ issuer }, name, { claim = 'sub', dpop = '', more = '' }) {
  const port = await freePort();
  const askedBy = { envoy: 'envoy-grpc', 'envoy-http': 'envoy-http"\npath_prefix = "/dpop' }[name] ?? name;
  const text = adapted(await block('forward-authentication', 'toml', '# gateway.toml'), {
    '"https://as.example.com"': `"${issuer}"\naudience = "${AUDIENCE}"\n${dpop}`,
    '127.0.0.1:9001': `127.0.0.1:${port}`,
    'asked_by = "nginx"': `asked_by = "${askedBy}"`,
    'claim = "sub"': `claim = "${claim}"`,
  });
  const folder = await folderWith({ 'gateway.toml': `${text}\n${more}` });
  const parameters = ['--config', join(folder, 'gateway.toml')];
  const { stop } = await listenAt(port, folder, process.env.INTEROP_GATEWAY, parameters);
  let stopped;
  return { address: `127.0.0.1:${port}`, stop: () => { stopped ??= stop(); return stopped; } };
}

async function behindAsking(use, name, options = {}) {
  const client = await holder(use);
  const app = await application(use);
  const port = await freePort();
  const auth = await use(authorizer(client, name, options));
  await use(ASKING[name](port, new URL(app.url).host, auth.address));
  const by = sender(port);
  const visit = (url, more) => client.visit(url, { by, ...more });
  return { client, app, auth, by, visit };
}

async function asked(use, row, name) {
  const { client, app, auth, by, visit } = await behindAsking(use, name);
  const url = `${NAME}/orders`;
  const rejected = (what, outcome, attempt) => row(what, outcome, () => rejectedBefore(app, attempt));
  for (const [method, path, body] of [
    ['GET', '/orders?of=me&page=2'], ['POST', '/orders', 'one'], ['DELETE', '/a%2Fb//c/~d'],
  ]) {
    await row(`${method} ${path}`, '200', async () => {
      const response = await visit(NAME + path, { method, body });
      const { headers, url: at } = app.last();
      holds('URL at the application', at, path);
      holds('subject', headers['x-auth-subject'], 'somebody');
      holds('credentials', [headers.authorization, headers.dpop], [undefined, undefined]);
      return response;
    });
  }
  await row('a token of 28 KiB', '200', () => visit(url, { claims: { roles: 'x'.repeat(21_000) } }));
  await rejected('no token', '401', async () => {
    const response = await by(url);
    holds('challenge', response.headers.get('www-authenticate')?.startsWith('DPoP algs="'), true);
    return response;
  });
  // nginx sends no 400.
  const bad = name === 'ingress-nginx' ? '401' : '400';
  await rejected('a malformed Authorization field', `${bad} invalid_request`, () =>
    by(url, { headers: { authorization: 'DPoP' } }));
  for (const field of ['authorization', 'dpop']) {
    const outcome = field === 'dpop' ? '401 invalid_dpop_proof' : '400 invalid_request';
    // nginx itself sends a bare 400 for two fields of this name.
    const byItself = name === 'ingress-nginx' && field === 'authorization';
    await rejected(`${field} twice`, byItself ? '400' : outcome, async () => {
      const headers = await client.credentials(url);
      const [twice] = Object.keys(headers).filter((one) => one.toLowerCase() === field);
      return by(url, { headers: { ...headers, [twice]: [headers[twice], headers[twice]] } });
    });
  }
  await row('sent again as it was', '401 invalid_dpop_proof', async () => {
    const headers = await client.credentials(url);
    holds('the first time', (await by(url, { headers })).status, 200);
    return rejectedBefore(app, () => by(url, { headers }));
  });
  for (const field of ['X-Forwarded-Uri', 'X_Forwarded_Uri', 'X-Original-URI', 'X-Envoy-Original-Path']) {
    await rejected(`a proof for another path, with ${field}`, '401 invalid_dpop_proof', () =>
      visit(`${NAME}/admin`, { signed: url, headers: { [field]: '/orders' } }));
  }
  for (const field of ['X-Forwarded-Method', 'X-Original-Method', 'X-HTTP-Method-Override']) {
    await rejected(`a proof for another method, with ${field}`, '401 invalid_dpop_proof', () =>
      visit(url, { method: 'DELETE', signedMethod: 'GET', headers: { [field]: 'GET' } }));
  }
  for (const field of ALIASES) {
    await row(`${field} of the client's`, '200', async () => {
      const response = await visit(url, { headers: { [field]: 'admin' } });
      holds('subject', received(app, 'X-Auth-Subject'), ['somebody']);
      return response;
    });
  }
  await row('Connection names our field', '200', async () => {
    const response = await visit(url, { headers: { Connection: 'close, X-Auth-Subject' } });
    holds('subject', received(app, 'X-Auth-Subject'), ['somebody']);
    return response;
  });
  await rejected('a subject that cannot be a field', name === 'envoy-http' ? '503' : '500', () =>
    visit(url, { claims: { sub: 'Zoë' } }));
  if (name === 'ingress-nginx') {
    // The URL would be `https://api.example.com?/orders`, of which the path is `/`.
    await rejected('a host that could swallow the path', '403', async () => {
      const headers = await client.credentials(`${NAME}/`);
      return by(url, { headers: { ...headers, host: 'api.example.com?' } });
    });
  }
  const down = { caddy: '502', envoy: '503', 'envoy-http': '503' }[name] ?? '500';
  await row('the gateway is down', down, async () => {
    await auth.stop();
    return rejectedBefore(app, () => visit(url));
  });
}

async function askedWithoutTheClaim(use, row, name) {
  const { app, visit } = await behindAsking(use, name, { claim: 'tenant' });
  for (const field of ALIASES) {
    await row(`${field} of the client's`, '200', async () => {
      const response = await visit(`${NAME}/orders`, { headers: { [field]: 'admin' } });
      holds('subject', received(app, 'X-Auth-Subject'), []);
      return response;
    });
  }
}

async function askedWithNonces(use, row, name) {
  const { client, by, visit } = await behindAsking(use, name, { dpop: 'nonces = "generated"' });
  await nonceRows(row, client, by, visit, `${NAME}/orders`);
}

async function askedWithTwoSchemes(use, row, name) {
  const { app, by } = await behindAsking(use, name, { dpop: 'allow_bearer = true' });
  await row('both challenges', '401', () => rejectedBefore(app, async () => {
    const response = await by(`${NAME}/orders`);
    const challenges = response.headers.get('www-authenticate');
    holds('challenges', [/DPoP algs="/.test(challenges), /Bearer/.test(challenges)], [true, true]);
    return response;
  }));
}

/** The gateway responds to preflights, where it can. */
async function askedByPages(use, row) {
  const origin = 'https://app.example.com';
  const more = `[cors]\nallow_origins = ["${origin}"]\nallow_methods = ["GET"]`;
  const { app, by, visit } = await behindAsking(use, 'envoy', { more });
  await row('a preflight', '200', () => rejectedBefore(app, async () => {
    const headers = { origin, 'access-control-request-method': 'GET', 'access-control-request-headers': 'dpop' };
    const response = await by(`${NAME}/orders`, { method: 'OPTIONS', headers });
    holds('origin', response.headers.get('access-control-allow-origin'), origin);
    return response;
  }));
  await row('GET', '200', async () => {
    const response = await visit(`${NAME}/orders`, { headers: { origin } });
    holds('origin', response.headers.get('access-control-allow-origin'), origin);
    return response;
  });
}

/** All YAML of the pages is YAML. What Kubernetes reads has kinds and names, and nothing twice. */
async function kubernetes() {
  const script = 'import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))';
  const parse = (text) => {
    const { status, stdout, stderr } = spawnSync(process.env.INTEROP_PYTHON, ['-c', script], { input: text });
    if (status !== 0) throw new Error(`${stderr}`);
    return JSON.parse(stdout);
  };
  const kinds = [];
  for (const { language, title, block: text } of [...await blocks('proxies'), ...await blocks('forward-authentication')]) {
    if (language !== 'yaml') continue;
    const documents = parse(text);
    if (!title.startsWith('# kubernetes/')) continue;
    for (const { apiVersion, kind, metadata } of documents) {
      holds(`${kind}`, [typeof apiVersion, typeof metadata.name], ['string', 'string']);
      kinds.push(kind);
    }
  }
  return kinds.join(' ');
}

await expect(['node'], 'the YAML for Kubernetes is parsed', 'HTTPRoute HTTPRoute Ingress ConfigMap Ingress', kubernetes);
const chosen = process.argv[2]?.split(',') ?? Object.keys({ ...PROXIES, ...ASKING });
for (const name of chosen) {
  const software = [{ 'envoy-http': 'envoy', 'ingress-nginx': 'nginx' }[name] ?? name, 'oauth4webapi'];
  const tried = (what, steps) => scenario(software, what, (use, row) => steps(use, row, name));
  if (name in PROXIES) {
    await tried('a name of its own', (use, row) => served(use, row, name, NAME, PREFIX));
    await tried('another name', (use, row) => anotherName(use, row, name));
    await tried('a prefix', (use, row) => served(use, row, name, PREFIX, NAME));
    await tried('nonces on', nonces);
    await tried('retries', sentOnce);
  }
  if (!(name in ASKING)) continue;
  const kind = `forward authentication${{ 'envoy-http': ' over HTTP', 'ingress-nginx': ' as ingress-nginx' }[name] ?? ''}`;
  await tried(kind, asked);
  await tried(`${kind}, the claim is absent`, askedWithoutTheClaim);
  // ingress-nginx passes no nonce on, and nginx only one challenge.
  if (name === 'ingress-nginx') continue;
  await tried(`${kind}, nonces on`, askedWithNonces);
  await tried(`${kind}, two schemes`, askedWithTwoSchemes);
  if (name === 'envoy') await tried(`${kind}, CORS`, askedByPages);
}
process.exitCode = conclude() ? 0 : 1;
