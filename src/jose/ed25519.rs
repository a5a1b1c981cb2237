//! The Ed25519 checks on which engines differ, made here for all of them.

/// Whether the y coordinate is below the field's prime, 2^255 - 19 (RFC 8032 section 5.1.3).
/// Engines differ here. A second encoding of a key would have a second thumbprint.
pub(crate) fn is_canonical(encoding: &[u8; 32]) -> bool {
    let top = encoding[31] & 0x7f;
    !(top == 0x7f && encoding[1..31].iter().all(|byte| *byte == 0xff) && encoding[0] >= 0xed)
}

/// Whether the encoding is that of a point whose order divides 8, in canonical form or not. With a
/// key like this, one signature can be valid for every message. With an R like this, a signature
/// proves less than it seems to.
pub(crate) fn is_small_order(encoding: &[u8; 32]) -> bool {
    /// The y coordinates, with the sign bit clear: 0, 1, the two of order 8, p - 1, p, p + 1.
    const Y: [[u8; 32]; 7] = {
        const fn edge(first: u8) -> [u8; 32] {
            let mut y = [0xff; 32];
            y[0] = first;
            y[31] = 0x7f;
            y
        }
        const fn small(first: u8) -> [u8; 32] {
            let mut y = [0; 32];
            y[0] = first;
            y
        }
        [
            small(0),
            small(1),
            [
                0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
                0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
                0x6d, 0x53, 0xfc, 0x05,
            ],
            [
                0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
                0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
                0x92, 0xac, 0x03, 0x7a,
            ],
            edge(0xec),
            edge(0xed),
            edge(0xee),
        ]
    };
    let mut y = *encoding;
    y[31] &= 0x7f;
    Y.contains(&y)
}

/// Whether S is below L, the order of the base point (RFC 8032 section 5.1.7). One engine skips
/// this check when another crate in the build enables its feature `legacy_compatibility`.
pub(crate) fn is_reduced(s: &[u8; 32]) -> bool {
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    s.iter().rev().lt(L.iter().rev())
}
