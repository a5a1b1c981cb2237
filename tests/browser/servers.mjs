// Starts the examples of this crate as processes. They end with this one.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

/** Starts an example, which prints where it listens. `listen` is an address of the loopback. */
export async function start(name, listen, ...parameters) {
  const child = spawn(join(process.env.EXAMPLES, name), ['--listen', listen, ...parameters], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  running.add(child);
  const ended = once(child, 'exit').then(() => running.delete(child));
  const [line] = await Promise.race([once(createInterface({ input: child.stdout }), 'line'), ended.then(() => [''])]);
  const url = /^listening on (http:\S+)$/.exec(line)?.[1];
  if (!url) throw new Error(`${name} ${parameters.join(' ')} does not listen`);
  return { url, signal: (signal) => child.kill(signal) };
}

/** An address whose port is free, as far as one can know. */
export async function freeAddress() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return `127.0.0.1:${port}`;
}
