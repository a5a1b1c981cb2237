//! Requests that are rejected, each for another check.

use std::hint::black_box;

use http::request::Parts;
use tower_dpop::proof::ProofError;
use tower_dpop::testing::{Defect, TestRequest};
use tower_dpop::{Algorithm, NonceSecret, Rejection, StatelessNonces};

use crate::parties::{Client, Parties, proof, ready};
use crate::raw::{Signed, signed};
use crate::requests::warm_up;
use crate::results::{Label, Party, Rows, Section};
use crate::timing::{REQUESTS, Row, Subject, measure};
use tower_dpop::Verifier;

/// What is looked at before each defect is found, in the order in which a request is checked. Each
/// row does what those above it do.
const BEFORE_THE_SIGNATURE: [(Defect, &str); 12] = [
    (Defect::NoAuthorization, "nothing is read"),
    (Defect::NoProof, "the two header fields"),
    (Defect::ProofNotAJwt, "+ a split that fails"),
    (
        Defect::WrongTyp,
        "+ the JWS: split, base64url of all three segments; the header's JSON",
    ),
    (Defect::AlgHs256, "+ the algorithm"),
    (Defect::JwkForEncryption, "+ the key's members"),
    (
        Defect::OtherMethod,
        "the header, which is known; the payload's JSON",
    ),
    (Defect::OtherPath, "+ the URL, normalised"),
    (Defect::TooOld, "+ the time"),
    (Defect::OtherTokensHash, "+ the token's hash"),
    (
        Defect::StolenToken,
        "+ the token, out of the cache; the header, which is not known",
    ),
    (Defect::ForeignNonce, "+ the nonce's MAC"),
];

/// Rejections by the engine `aws-lc-rs`.
pub fn section(parties: &Parties, rounds: usize) -> Section {
    let mut rows: Vec<Row<'_>> = BEFORE_THE_SIGNATURE
        .into_iter()
        .map(|(defect, note)| {
            let label = Label::new(defect.name())
                .note(note)
                .at_most(0.05, "rejection without a signature");
            let charted = matches!(
                defect,
                Defect::WrongTyp | Defect::OtherMethod | Defect::OtherTokensHash
            );
            let label = if charted {
                label.charted(Party::Ours)
            } else {
                label
            };
            Row::new(label, Rejected::new(parties, defect))
        })
        .collect();
    rows.push(Row::new(
        Label::new(Defect::WrongSignature.name()).note("+ the signature, by a known key"),
        Rejected::new(parties, Defect::WrongSignature),
    ));
    rows.push(Row::new(
        Label::new("replayed").note("+ the replay store: all that a request that passes does"),
        Replayed(Rejected::new(parties, Defect::WrongSignature)),
    ));
    let text = "\
        `Verifier::verify` of ES256 requests with one defect, by a verifier that knows the \
        client's key and token. The notes say what has been read by then; `+` means: and what \
        the row above reads. A header that is known is not read again. Those without a signature are rejected 500 in a row, as in a \
        flood; the first few after other work take up to twice that.";
    Section::new(
        "Rejections",
        text,
        Rows::Micros(measure(rounds, || parties.tick(), rows)),
    )
}

/// Requests with a defect.
struct Rejected {
    verifier: Verifier,
    client: Client,
    defect: Defect,
    heads: Vec<Parts>,
}

impl Rejected {
    fn new(parties: &Parties, defect: Defect) -> Self {
        let mut client = parties.client(Algorithm::Es256);
        // Nonces are required only where one of them is the defect: a request without a proof, say,
        // would be rejected for the nonce that it lacks.
        let verifier = if defect == Defect::ForeignNonce {
            let nonces = StatelessNonces::new(NonceSecret::generate());
            let verifier = parties.verifier_by(|rules| rules.with_nonces(nonces));
            let nonce = verifier.issue_nonce().expect("nonces are required");
            client = Client(client.0.with_nonce(nonce.as_str()));
            verifier
        } else {
            parties.verifier()
        };
        warm_up(&verifier, std::slice::from_ref(&client));
        Self {
            verifier,
            client,
            defect,
            heads: Vec::new(),
        }
    }

    fn make(&mut self, change: impl Fn(TestRequest) -> TestRequest) {
        self.heads = (0..REQUESTS)
            .map(|_| change(self.client.unsigned()).build::<()>().into_parts().0)
            .collect();
    }

    /// Raw verifications of good proofs: that of a rejected one may be missing, or not verify.
    fn raw(&self) -> Vec<Signed> {
        let heads: Vec<Parts> = (0..REQUESTS).map(|_| self.client.head()).collect();
        signed(heads.iter().map(proof))
    }

    fn reject_all(&self) {
        for head in &self.heads {
            black_box(ready(self.verifier.verify(black_box(head)))).expect_err("rejected");
        }
    }

    /// Each request is rejected for this reason, and for no other.
    fn assert_reason(&self, reason: &Rejection) {
        for head in &self.heads {
            let rejected = ready(self.verifier.verify(head)).expect_err("rejected");
            assert_eq!(rejected, *reason);
        }
    }
}

impl Subject for Rejected {
    fn prepare(&mut self) -> Vec<Signed> {
        let defect = self.defect;
        self.make(|request| request.with_defect(defect));
        let reason = self.client.unsigned().rejection_of(defect);
        self.assert_reason(&reason);
        self.raw()
    }

    fn run(&mut self) {
        self.reject_all();
    }

    fn runs(&self) -> u16 {
        match self.defect {
            Defect::WrongSignature => 1,
            _ => 10,
        }
    }
}

/// Requests that have passed before.
struct Replayed(Rejected);

impl Subject for Replayed {
    fn prepare(&mut self) -> Vec<Signed> {
        self.0.make(|request| request);
        for head in &self.0.heads {
            ready(self.0.verifier.verify(head)).expect("the request passes");
        }
        self.0.assert_reason(&ProofError::Replayed.into());
        self.0.raw()
    }

    fn run(&mut self) {
        self.0.reject_all();
    }
}
