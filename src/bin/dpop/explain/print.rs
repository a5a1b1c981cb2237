//! How an explanation is printed: for people, and as JSON for programs.

use std::io::{self, Write};

use clap::ColorChoice;
use clap::builder::styling::Style;
use serde_json::{Value, json};

use crate::explain::Explanation;
use crate::explain::check::{Check, Outcome, Section};
use crate::explain::values;
use crate::terminal::{BOLD, DIM, GREEN, RED, ascii_json, shown, stream_choice};

/// Where values of a check begin.
const MARGIN: &str = "              ";

impl Explanation {
    pub(crate) fn print_json(&self) -> io::Result<()> {
        let checks: Vec<Value> = self.checks.iter().map(to_json).collect();
        let (decision, rejected) = match &self.decision {
            Ok(()) => ("accepted", None),
            Err(rejected) => ("rejected", Some(rejected)),
        };
        let document = json!({
            "decision": decision,
            "reason": rejected.map(|it| it.reason),
            "description": rejected.map(|it| &it.text),
            "status": rejected.map(|it| it.status),
            "error": rejected.and_then(|it| it.error),
            "method": self.method,
            "url": self.url,
            "time": self.now.as_unix(),
            "checks": checks,
        });
        let text = serde_json::to_string_pretty(&document)?;
        writeln!(io::stdout().lock(), "{}", ascii_json(&text))
    }

    pub(crate) fn print(&self, color: ColorChoice) -> io::Result<()> {
        let mut out = anstream::AutoStream::new(io::stdout().lock(), stream_choice(color));
        let date = values::date(values::seconds_of(self.now)).unwrap_or_default();
        let guessed = if self.is_guessed {
            " (host from the request; servers compare with their configuration: --public-url)"
        } else {
            ""
        };
        writeln!(
            out,
            "request  {} {}{guessed}",
            shown(&self.method),
            shown(&self.url)
        )?;
        writeln!(out, "time     {} ({date})", self.now.as_unix())?;
        let mut section = None;
        for check in &self.checks {
            if section != Some(check.section) {
                section = Some(check.section);
                let title = match check.section {
                    Section::Request => "Request",
                    Section::Proof => "Proof (RFC 9449 section 4.3)",
                    Section::Token => "Access token (RFC 9068 section 4)",
                    Section::Binding => "Proof and access token (RFC 9449 sections 4.3 and 7.1)",
                };
                writeln!(out, "\n{BOLD}{title}{BOLD:#}")?;
            }
            print_check(&mut out, check)?;
        }
        self.print_decision(&mut out)?;
        out.flush()
    }

    fn print_decision(&self, out: &mut impl Write) -> io::Result<()> {
        let failed = self
            .checks
            .iter()
            .filter(|check| check.has_failed())
            .count();
        writeln!(out)?;
        match &self.decision {
            Ok(()) => {
                writeln!(out, "{GREEN}accepted{GREEN:#}, as far as it was checked")?;
                if !self.has_nonce {
                    writeln!(
                        out,
                        "if the server requires nonces: give its latest with --nonce"
                    )?;
                }
                Ok(())
            }
            Err(rejected) => {
                let error = rejected.error.map(|error| format!(" {error}"));
                writeln!(
                    out,
                    "{RED}rejected{RED:#}: {} (status {}{})",
                    rejected.reason,
                    rejected.status,
                    error.unwrap_or_default()
                )?;
                writeln!(out, "{}", rejected.text)?;
                if failed > 1 {
                    writeln!(out, "{failed} checks failed: a server reports one of them")?;
                }
                Ok(())
            }
        }
    }
}

fn print_check(out: &mut impl Write, check: &Check) -> io::Result<()> {
    let number = check
        .number
        .map_or_else(String::new, |number| number.to_string());
    let mut line = |style: Style, result: &str, text: &str| {
        let name = check.name;
        let line = format!("  {style}{result:<7}{style:#} {number:>2}  {name:<16} {text}");
        writeln!(out, "{}", line.trim_end())
    };
    match &check.outcome {
        Outcome::Passed(found) => line(GREEN, "ok", found),
        Outcome::NotChecked(why) => line(DIM, "-", &format!("not checked: {why}")),
        Outcome::Failed(fault) => {
            line(RED, "FAILED", &fault.text)?;
            if let Some(detail) = &fault.detail {
                writeln!(out, "{MARGIN}{detail}")?;
            }
            for (name, value) in [("found", &fault.found), ("expected", &fault.expected)] {
                if let Some(value) = value {
                    writeln!(out, "{MARGIN}{name:<8}  {value}")?;
                }
            }
            Ok(())
        }
    }
}

fn to_json(check: &Check) -> Value {
    let mut json = json!({
        "section": check.section,
        "check": check.name,
        "number": check.number,
    });
    let object = &mut json;
    match &check.outcome {
        Outcome::Passed(found) => {
            object["result"] = "ok".into();
            if !found.is_empty() {
                object["found"] = found.as_str().into();
            }
        }
        Outcome::NotChecked(why) => {
            object["result"] = "not checked".into();
            object["detail"] = why.as_str().into();
        }
        Outcome::Failed(fault) => {
            object["result"] = "failed".into();
            object["reason"] = fault.reason.into();
            object["description"] = fault.text.as_str().into();
            for (name, value) in [
                ("detail", &fault.detail),
                ("found", &fault.found),
                ("expected", &fault.expected),
            ] {
                if let Some(value) = value {
                    object[name] = value.as_str().into();
                }
            }
        }
    }
    json
}
