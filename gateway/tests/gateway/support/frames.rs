//! HTTP/2 frame by frame (RFC 9113), for requests that no client library would send.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Started;
use super::raw::PATIENCE;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A request on the first stream of a connection.
#[derive(Clone)]
pub struct FramedRequest {
    /// Name and value, in their order.
    pub fields: Vec<(String, String)>,
    /// `None`: no DATA frame.
    pub body: Option<Vec<u8>>,
    pub trailers: Vec<(String, String)>,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    /// The stream or the connection ended with an error instead.
    Error,
}

impl FramedRequest {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the value of a field.
    pub fn replace(mut self, name: &str, value: &str) -> Self {
        let mut fields = self.fields.iter_mut();
        let field = fields.find(|(known, _)| known == name).unwrap();
        value.clone_into(&mut field.1);
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        let before = self.fields.len();
        self.fields.retain(|(known, _)| known != name);
        assert!(self.fields.len() < before, "no field {name}");
        self
    }

    /// Before all others, where pseudo-headers stand.
    pub fn first(mut self, name: &str, value: &str) -> Self {
        self.fields.insert(0, (name.to_owned(), value.to_owned()));
        self
    }

    pub fn with_body(mut self, body: &[u8]) -> Self {
        self.body = Some(body.to_vec());
        self
    }

    pub fn with_trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        let ends = |last: bool| if last { END_STREAM } else { 0 };
        let has_trailers = !self.trailers.is_empty();
        let flags = END_HEADERS | ends(self.body.is_none() && !has_trailers);
        bytes.extend(frame(HEADERS, flags, 1, &block(&self.fields)));
        if let Some(body) = &self.body {
            bytes.extend(frame(DATA, ends(!has_trailers), 1, body));
        }
        if has_trailers {
            let flags = END_HEADERS | END_STREAM;
            bytes.extend(frame(HEADERS, flags, 1, &block(&self.trailers)));
        }
        bytes
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// RFC 7541 section 6.2.2: literals without indexing and without Huffman coding.
fn block(fields: &[(String, String)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// RFC 7541 section 5.1, with a prefix of 7 bits.
fn integer(block: &mut Vec<u8>, number: usize) {
    let Some(mut rest) = number.checked_sub(127) else {
        return block.push(u8::try_from(number).unwrap());
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128 + 128).unwrap());
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// The status is the first field of a response.
fn status(block: &[u8]) -> u16 {
    // RFC 7541 appendix A: these are in the static table.
    let known = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [indexed @ 0x88..=0x8e, ..] => known[usize::from(indexed - 0x88)],
        // Another value of `:status`, with Huffman coding (appendix B): 0, 1 and 2 have 5 bits, other digits 6.
        [0x48 | 0x08, length, huffman @ ..] if length & 0x80 != 0 => {
            let mut bits = huffman[..usize::from(length & 0x7f)]
                .iter()
                .flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
            let mut next = |count: usize, start: u16| {
                bits.by_ref()
                    .take(count)
                    .fold(start, |code, bit| code * 2 + bit)
            };
            let digits = [(); 3].map(|()| match next(5, 0) {
                small @ 0..=2 => small,
                // 3 is 0x19, 4 is 0x1a, and so on.
                start => next(1, start) - 0x19 + 3,
            });
            digits.iter().fold(0, |status, digit| status * 10 + digit)
        }
        [0x48 | 0x08, 3, digits @ ..] => {
            std::str::from_utf8(&digits[..3]).unwrap().parse().unwrap()
        }
        _ => panic!("no status: {block:?}"),
    }
}

impl Started {
    /// Sends a request to the reverse proxy.
    pub async fn frames(&self, request: &FramedRequest) -> Outcome {
        let address = self.url("proxy").strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&request.bytes()).await.unwrap();
        let outcome = tokio::time::timeout(PATIENCE, outcome(&mut stream)).await;
        outcome.expect("a response")
    }
}

async fn outcome(stream: &mut TcpStream) -> Outcome {
    let mut outcome = Outcome::Error;
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() {
            return outcome;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if stream.read_exact(&mut payload).await.is_err() {
            return outcome;
        }
        let ends = head[4] & END_STREAM != 0;
        match head[3] {
            HEADERS => outcome = Outcome::Status(status(&payload)),
            RST_STREAM | GOAWAY => return outcome,
            _ => {}
        }
        if ends && matches!(head[3], HEADERS | DATA) {
            return outcome;
        }
    }
}
