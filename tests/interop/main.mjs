// Tries everything and prints what came of it; fails if anything differs from what is expected.

import { clients } from './clients.mjs';
import { ours } from './our-client.mjs';
import { providerTokens } from './provider.mjs';
import { conclude } from './table.mjs';
import { tokens } from './tokens.mjs';

await tokens();
await clients();
await providerTokens();
await ours();
process.exitCode = conclude() ? 0 : 1;
