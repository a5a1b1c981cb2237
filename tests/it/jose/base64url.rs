//! Only canonical base64url is accepted.

use serde_json::json;
use tower_dpop::jose::InvalidJwk;
use tower_dpop::proof::ProofError;

use crate::proof::Respell;
use common::{Attempt, AttemptExt as _, Key, KeyExt as _, ath, base64url, keys};

/// Spaces behind a JSON text until base64url leaves four bits of its last character unused.
fn with_unused_bits(json: &str) -> String {
    let spaces = (0..3)
        .find(|spaces| (json.len() + spaces) % 3 == 1)
        .unwrap();
    json.to_owned() + &" ".repeat(spaces)
}

const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The same text with another last character, that many places further in the alphabet.
fn respelled(text: &str, further: usize) -> String {
    let (start, last) = text.split_at(text.len() - 1);
    let place = ALPHABET.find(last).unwrap() + further;
    format!("{start}{}", &ALPHABET[place..=place])
}

#[test]
fn segments_are_written_in_the_one_canonical_way() {
    let edits: &[(&str, Respell)] = &[
        ("padding", |text| text + "=="),
        ("half of the padding", |text| text + "="),
        ("a plus", |text| format!("+{}", &text[1..])),
        ("a slash", |text| format!("/{}", &text[1..])),
        ("a space in front", |text| format!(" {text}")),
        ("a space inside", |text| {
            format!("{} {}", &text[..8], &text[8..])
        }),
        ("a space behind", |text| text + " "),
        ("a TAB inside", |text| {
            format!("{}\t{}", &text[..8], &text[8..])
        }),
        ("an impossible length", |text| text + "AAA"),
        ("an exclamation mark", |text| format!("!{}", &text[1..])),
        ("a tilde", |text| format!("~{}", &text[1..])),
        ("a percent-encoding", |text| text + "%3D%3D"),
        ("other than ASCII", |text| format!("é{}", &text[2..])),
        ("the lowest unused bit", |text| respelled(&text, 1)),
        ("the next unused bit", |text| respelled(&text, 2)),
        ("the next but one", |text| respelled(&text, 4)),
        ("the highest unused bit", |text| respelled(&text, 8)),
        ("all unused bits", |text| respelled(&text, 15)),
    ];
    let proof = |in_segment: usize, edit: Respell| {
        Attempt::but(|a| {
            let token = a.token();
            a.proof_claims["ath"] = json!(ath(&token));
            let spelled = |segment, bytes: &[u8]| {
                let text = base64url(bytes);
                if segment == in_segment {
                    edit(text)
                } else {
                    text
                }
            };
            let header = spelled(0, with_unused_bits(&a.proof_header.to_string()).as_bytes());
            let payload = spelled(1, with_unused_bits(&a.proof_claims.to_string()).as_bytes());
            let signing_input = format!("{header}.{payload}");
            let signature = spelled(2, &a.key.signature(signing_input.as_bytes()));
            let proof = format!("{signing_input}.{signature}");
            a.dpop = Some(vec![common::field(proof.as_bytes())]);
            a.token = Some(token);
        })
        .outcome()
    };
    for (segment, of) in ["header", "payload", "signature"].into_iter().enumerate() {
        proof(segment, |text| text).assert_passed("the canonical spelling");
        for (name, edit) in edits {
            proof(segment, *edit)
                .assert_reason(&format!("J-14: {name} in the {of}"), ProofError::NotAJwt);
        }
    }
}

#[test]
fn the_numbers_of_a_key_are_written_in_the_one_canonical_way() {
    let edits: &[(&str, Respell)] = &[
        ("padding", |text| text + "="),
        ("a plus", |text| format!("+{}", &text[1..])),
        ("a slash", |text| format!("/{}", &text[1..])),
        ("a space in front", |text| format!(" {text}")),
        ("a space behind", |text| text + " "),
        ("a line feed inside", |text| {
            format!("{}\n{}", &text[..2], &text[2..])
        }),
        ("an impossible length", |text| {
            text[..text.len() / 4 * 4].to_owned() + "A"
        }),
        ("other than ASCII", |text| format!("é{}", &text[2..])),
        ("nothing", |_| String::new()),
    ];
    let aliases: &[(&str, Respell)] = &[
        ("an unused bit", |text| respelled(&text, 1)),
        ("the other unused bit", |text| respelled(&text, 2)),
        ("both unused bits", |text| respelled(&text, 3)),
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
        // A multiple of three bytes leaves no bit unused.
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
