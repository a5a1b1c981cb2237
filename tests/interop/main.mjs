// Tries everything and prints what came of it; fails if anything differs from what is expected.

import { atproto } from './atproto.mjs';
import { clients } from './clients.mjs';
import { coexistence } from './coexistence.mjs';
import { issuers } from './issuers.mjs';
import { mcp } from './mcp.mjs';
import { nodes } from './nodes.mjs';
import { oidf } from './oidf.mjs';
import { ours } from './our-client.mjs';
import { providerTokens } from './provider.mjs';
import { proxies } from './proxies.mjs';
import { conclude } from './table.mjs';
import { tokens } from './tokens.mjs';
import { uploads } from './uploads.mjs';

await tokens();
await clients();
await oidf();
await providerTokens();
await issuers();
await coexistence();
await ours();
await atproto();
await mcp();
await proxies();
await nodes();
await uploads();
process.exitCode = conclude() ? 0 : 1;
