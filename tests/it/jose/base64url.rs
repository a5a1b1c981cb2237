//! Only canonical base64url is accepted.

use serde_json::json;
use tower_dpop::jose::InvalidJwk;
use tower_dpop::proof::ProofError;

use crate::proof::EditText;
use common::{Attempt, AttemptExt as _, Key, KeyExt as _, ath, base64url, keys};

/// Appends spaces to a JSON text until the last character of its base64url form has four unused bits.
fn with_unused_bits(json: &str) -> String {
    let spaces = (0..3)
        .find(|spaces| (json.len() + spaces) % 3 == 1)
        .unwrap();
    json.to_owned() + &" ".repeat(spaces)
}

const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Replaces the last character by the one that is this many steps later in the alphabet.
fn with_last_character_moved(text: &str, steps: usize) -> String {
    let (start, last) = text.split_at(text.len() - 1);
    let index = ALPHABET.find(last).unwrap() + steps;
    format!("{start}{}", &ALPHABET[index..=index])
}

#[test]
fn segments_must_be_canonical() {
    let edits: &[(&str, EditText)] = &[
        ("padding", |text| text + "=="),
        ("half of the padding", |text| text + "="),
        ("a plus", |text| format!("+{}", &text[1..])),
        ("a slash", |text| format!("/{}", &text[1..])),
        ("a leading space", |text| format!(" {text}")),
        ("a space inside", |text| {
            format!("{} {}", &text[..8], &text[8..])
        }),
        ("a trailing space", |text| text + " "),
        ("a TAB inside", |text| {
            format!("{}\t{}", &text[..8], &text[8..])
        }),
        ("an impossible length", |text| text + "AAA"),
        ("an exclamation mark", |text| format!("!{}", &text[1..])),
        ("a tilde", |text| format!("~{}", &text[1..])),
        ("a percent-encoding", |text| text + "%3D%3D"),
        ("a non-ASCII character", |text| format!("é{}", &text[2..])),
        ("the lowest unused bit", |text| {
            with_last_character_moved(&text, 1)
        }),
        ("the second unused bit", |text| {
            with_last_character_moved(&text, 2)
        }),
        ("the third unused bit", |text| {
            with_last_character_moved(&text, 4)
        }),
        ("the highest unused bit", |text| {
            with_last_character_moved(&text, 8)
        }),
        ("all unused bits", |text| {
            with_last_character_moved(&text, 15)
        }),
    ];
    let proof = |in_segment: usize, edit: EditText| {
        Attempt::but(|a| {
            let token = a.token();
            a.proof_claims["ath"] = json!(ath(&token));
            let encode = |segment, bytes: &[u8]| {
                let text = base64url(bytes);
                if segment == in_segment {
                    edit(text)
                } else {
                    text
                }
            };
            let header = encode(0, with_unused_bits(&a.proof_header.to_string()).as_bytes());
            let payload = encode(1, with_unused_bits(&a.proof_claims.to_string()).as_bytes());
            let signing_input = format!("{header}.{payload}");
            let signature = encode(2, &a.key.signature(signing_input.as_bytes()));
            let proof = format!("{signing_input}.{signature}");
            a.dpop = Some(vec![common::field(proof.as_bytes())]);
            a.token = Some(token);
        })
        .outcome()
    };
    for (segment, of) in ["header", "payload", "signature"].into_iter().enumerate() {
        proof(segment, |text| text).assert_passed("the canonical form");
        for (name, edit) in edits {
            proof(segment, *edit)
                .assert_reason(&format!("J-14: {name} in the {of}"), ProofError::NotAJwt);
        }
    }
}

#[test]
fn key_members_must_be_canonical() {
    let edits: &[(&str, EditText)] = &[
        ("padding", |text| text + "="),
        ("a plus", |text| format!("+{}", &text[1..])),
        ("a slash", |text| format!("/{}", &text[1..])),
        ("a leading space", |text| format!(" {text}")),
        ("a trailing space", |text| text + " "),
        ("a line feed inside", |text| {
            format!("{}\n{}", &text[..2], &text[2..])
        }),
        ("an impossible length", |text| {
            text[..text.len() / 4 * 4].to_owned() + "A"
        }),
        ("a non-ASCII character", |text| format!("é{}", &text[2..])),
        ("an empty string", |_| String::new()),
    ];
    let aliases: &[(&str, EditText)] = &[
        ("an unused bit", |text| with_last_character_moved(&text, 1)),
        ("the other unused bit", |text| {
            with_last_character_moved(&text, 2)
        }),
        ("both unused bits", |text| {
            with_last_character_moved(&text, 3)
        }),
    ];
    let rows = [
        (keys::client(), "x", InvalidJwk::Coordinate),
        (keys::client(), "y", InvalidJwk::Coordinate),
        (Key::es384(), "x", InvalidJwk::Coordinate),
        (Key::ed25519("EdDSA"), "x", InvalidJwk::Coordinate),
        (Key::rsa("PS256"), "n", InvalidJwk::Integer),
        (Key::rsa("PS256"), "e", InvalidJwk::Integer),
    ];
    for (key, member, error) in rows {
        // Only if the length is not a multiple of three bytes does the last character have unused bits.
        let number = key.public_jwk()[member].as_str().unwrap().len();
        let aliases = if number % 4 == 0 { &[] } else { aliases };
        for (name, edit) in edits.iter().chain(aliases) {
            let mut attempt = Attempt::with_key(key.clone());
            let number = attempt.proof_header["jwk"][member].as_str().unwrap();
            attempt.proof_header["jwk"][member] = json!(edit(number.to_owned()));
            attempt.outcome().assert_reason(
                &format!("J-14: {name} in {member} of {}", key.alg()),
                ProofError::Key(error),
            );
        }
    }
}
