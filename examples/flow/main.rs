//! The whole protocol over real HTTP: a client gets a token that is bound to its key and uses it,
//! and a thief cannot use the stolen token.
//!
//! ```sh
//! cargo run --example flow                      # the story
//! cargo run --example flow -- --verbose         # with more header fields, and nothing shortened
//! cargo run --example flow -- --html flow.html  # the same story as a page, to show to others
//! ```
//!
//! Values that must be equal have the same mark, for example `[K]` for the client's key.
//! The example stops with an error if a step has an unexpected result.
//!
//! # Where to read on
//!
//! 1. [`client`]: how the client gets a token and uses it.
//! 2. [`thief`]: what a thief tries, and every defect that a request can have.
//! 3. [`servers`]: the resource server. The authorization server is the one in
//!    `examples/authorization_server`.
//!
//! The rest records what is sent ([`recorder`], [`story`]) and shows it ([`text`], [`page`], [`diagram`]).
//!
//! # The page
//!
//! `--html FILE` writes one self-contained file: the sequence diagram, each message with its decoded
//! tokens, and the table of rejections. It loads nothing, has no script, and follows the reader's
//! choice of light or dark. All its values are those of the run that wrote it; the tokens are useless
//! afterwards, because their servers have ended. `--svg FILE` writes the diagram alone. It has no
//! values, so it is the same in every run (`docs/guide/flow.svg`).

#[path = "../authorization_server/server.rs"]
mod authorization_server;
mod client;
mod diagram;
mod html;
mod jwt;
mod message;
mod page;
mod recorder;
mod servers;
mod story;
mod text;
mod thief;

use std::{env, fs};

use tower_dpop::jose::SigningKey;

use crate::recorder::{Recorder, Result};
use crate::servers::Servers;
use crate::story::{Party, Story};
use crate::text::{Colours, Length};

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let show: &dyn Fn(&Story) -> Result<()> = match arguments[..] {
        [] => &|story| text::print(story, Length::Short, Colours::of_terminal()),
        ["--verbose"] => &|story| text::print(story, Length::Full, Colours::of_terminal()),
        ["--html", file] => &|story| write(file, &page::html(story)),
        ["--svg", file] => &|story| write(file, &diagram::svg(story)),
        _ => return Err("usage: flow [--verbose | --html FILE | --svg FILE]".into()),
    };
    let mut recorder = Recorder::default();
    let told = tell(&mut recorder).await;
    // After an error, too: the last step is the one that failed.
    show(&recorder.story)?;
    told
}

async fn tell(recorder: &mut Recorder) -> Result<()> {
    let servers = Servers::start().await?;
    recorder.story.parties = vec![
        (Party::Client, format!("client_id {}", client::ID)),
        (Party::AuthorizationServer, servers.issuer.clone()),
        (Party::ResourceServer, servers.api.clone()),
        (
            Party::Thief,
            "has one request of the client, not its key".into(),
        ),
    ];
    let key = SigningKey::generate()?;
    let token = client::get_token(recorder, &servers.issuer, &key).await?;
    let overheard = client::use_token(recorder, &servers.api, &key, &token).await?;
    thief::attack(recorder, &servers.api, &key, &token, overheard).await?;
    client::continue_as_before(recorder, &servers.api, key, token).await?;
    thief::try_every_defect(recorder).await
}

fn write(file: &str, content: &str) -> Result<()> {
    fs::write(file, content)?;
    println!("wrote {file}");
    Ok(())
}
