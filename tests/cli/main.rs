//! The tool `dpop`, as a user runs it: the real program, its output and its exit status.

mod explain;
mod guide;
mod keygen;
mod private_ca;
mod proof;
mod save_request;
mod servers;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use http::Request;

/// A folder of one test, which is removed at its end.
struct Folder(PathBuf);

impl Folder {
    #[track_caller]
    fn new(name: &str) -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    #[track_caller]
    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    #[track_caller]
    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Runs the tool here, with this standard input. Plain `http` through the environment's proxy would fail.
    #[track_caller]
    fn dpop(&self, arguments: &[&str], input: &str) -> Run {
        let closed = "http://127.0.0.1:1";
        self.dpop_with(
            &["http_proxy", "HTTP_PROXY", "all_proxy"].map(|name| (name, closed)),
            arguments,
            input,
        )
    }

    /// The same, with these variables.
    #[track_caller]
    fn dpop_with(&self, variables: &[(&str, &str)], arguments: &[&str], input: &str) -> Run {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_dpop"))
            .args(arguments)
            .current_dir(&self.0)
            .env_remove("DPOP_CLIENT_SECRET")
            .env_remove("NO_COLOR")
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read its input may have ended.
        let _ = tool.stdin.take().unwrap().write_all(input.as_bytes());
        Run::of(&tool.wait_with_output().unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a command printed, and its exit status.
#[derive(Debug)]
struct Run {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn of(output: &Output) -> Self {
        Self {
            status: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout.clone()).unwrap(),
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// The output of a command that must succeed.
    #[track_caller]
    fn output(&self) -> &str {
        assert_eq!(self.status, 0, "{self:?}");
        self.stdout.trim_end()
    }

    #[track_caller]
    fn assert_fails(&self, status: i32, text: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert!(self.stderr.contains(text), "{self:?}");
        assert_eq!(self.stdout, "");
    }
}

/// The head of a request, as it is sent.
fn head(request: &Request<()>) -> String {
    let first = format!(
        "{} {} {:?}\r\n",
        request.method(),
        request.uri(),
        request.version()
    );
    let fields = request.headers().iter();
    fields.fold(first, |head, (name, value)| {
        head + name.as_str() + ": " + value.to_str().unwrap() + "\r\n"
    }) + "\r\n"
}
