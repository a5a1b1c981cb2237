//! The protocol of Redis: a client for commands of the tests, and where a message ends, for the proxy.

use std::io::{BufRead, BufReader, Error, ErrorKind, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A reply of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Nil,
    Integer(i64),
    Text(String),
    Error(String),
    Array(Vec<Reply>),
}

impl Reply {
    /// The text of a reply that has one.
    #[track_caller]
    pub fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            other => panic!("no text, but {other:?}"),
        }
    }

    #[track_caller]
    pub fn integer(self) -> i64 {
        match self {
            Self::Integer(integer) => integer,
            other => panic!("no integer, but {other:?}"),
        }
    }

    pub fn is_ok(&self) -> bool {
        *self == Self::Text("OK".into())
    }
}

/// Sends one command over a connection of its own. Each step may take two seconds.
pub fn command(port: u16, words: &[&str]) -> Result<Reply> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    stream.write_all(&encoded(words))?;
    read(&mut BufReader::new(stream))
}

/// A command as an array of bulk strings.
pub fn encoded(words: &[&str]) -> Vec<u8> {
    let head = format!("*{}\r\n", words.len());
    let words = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    std::iter::once(head)
        .chain(words)
        .collect::<String>()
        .into_bytes()
}

fn read(from: &mut impl BufRead) -> Result<Reply> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let Some(line) = line.strip_suffix("\r\n").filter(|line| !line.is_empty()) else {
        return Err(ErrorKind::UnexpectedEof.into());
    };
    let (kind, rest) = line.split_at(1);
    let number = || rest.parse::<i64>().map_err(Error::other);
    Ok(match kind {
        "+" => Reply::Text(rest.into()),
        "-" => Reply::Error(rest.into()),
        ":" => Reply::Integer(number()?),
        "$" => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) => {
                let mut text = vec![0; length + 2];
                from.read_exact(&mut text)?;
                text.truncate(length);
                Reply::Text(String::from_utf8_lossy(&text).into())
            }
        },
        "*" => match usize::try_from(number()?) {
            Err(_) => Reply::Nil,
            Ok(length) => Reply::Array((0..length).map(|_| read(from)).collect::<Result<_>>()?),
        },
        _ => return Err(Error::other(format!("no reply of Redis: {line}"))),
    })
}

/// The length of the first message in `bytes`, of RESP2 or RESP3, or `None` if it is not complete.
pub fn first_message(bytes: &[u8]) -> Option<usize> {
    let mut end = 0;
    let mut messages = 1;
    while messages > 0 {
        messages -= 1;
        let rest = bytes.get(end..)?;
        let line = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let number = || {
            let digits = rest[1..line].iter().copied().map(char::from);
            digits.collect::<String>().parse::<usize>().ok()
        };
        end += line + 2;
        match rest[0] {
            // Bulk strings, errors and verbatim strings. Nil has length -1.
            b'$' | b'!' | b'=' => end += number().map_or(0, |length| length + 2),
            b'*' | b'~' | b'>' => messages += number().unwrap_or(0),
            b'%' => messages += 2 * number().unwrap_or(0),
            _ => {}
        }
    }
    (end <= bytes.len()).then_some(end)
}

#[test]
fn messages_end_where_they_end() {
    for message in [
        "+OK\r\n",
        "$-1\r\n",
        "_\r\n",
        ":9223372036854775807\r\n",
        "$2\r\n\r\n\r\n",
        "*2\r\n$3\r\nSET\r\n$0\r\n\r\n",
        "%1\r\n+a\r\n*1\r\n:1\r\n",
        "*-1\r\n",
        "*0\r\n",
    ] {
        for cut in 0..message.len() {
            assert_eq!(first_message(&message.as_bytes()[..cut]), None, "{message}");
        }
        let more = format!("{message}+OK\r\n");
        assert_eq!(
            first_message(more.as_bytes()),
            Some(message.len()),
            "{message}"
        );
    }
}
