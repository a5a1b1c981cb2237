//! Settings from variables: the same tree as that of a document.

use zeroize::Zeroizing;

use crate::settings::fault::{Fault, SettingsError, unknown};
use crate::settings::node::Node;
use crate::settings::secrets::Secrets;

/// The path of each setting, and its variable. The value of a variable whose path ends in `.env` is a secret.
const VARIABLES: &[(&str, &str)] = &[
    ("public_url", "DPOP_PUBLIC_URL"),
    ("insecure_http", "DPOP_INSECURE_HTTP"),
    ("audience", "DPOP_AUDIENCE"),
    ("issuer.url", "DPOP_ISSUER"),
    ("issuer.audience", "DPOP_ISSUER_AUDIENCE"),
    ("issuer.profile", "DPOP_ISSUER_PROFILE"),
    ("issuer.lenient_typ", "DPOP_ISSUER_LENIENT_TYP"),
    ("issuer.algorithms", "DPOP_ISSUER_ALGORITHMS"),
    ("issuer.metadata_url", "DPOP_ISSUER_METADATA_URL"),
    ("issuer.jwks_url", "DPOP_ISSUER_JWKS_URL"),
    ("issuer.jwks_file", "DPOP_ISSUER_JWKS_FILE"),
    ("issuer.insecure_http", "DPOP_ISSUER_INSECURE_HTTP"),
    ("introspection.url", "DPOP_INTROSPECTION_URL"),
    ("introspection.client_id", "DPOP_INTROSPECTION_CLIENT_ID"),
    (
        "introspection.client_secret.env",
        "DPOP_INTROSPECTION_CLIENT_SECRET",
    ),
    (
        "introspection.client_secret.file",
        "DPOP_INTROSPECTION_CLIENT_SECRET_FILE",
    ),
    (
        "introspection.client_secret_post",
        "DPOP_INTROSPECTION_CLIENT_SECRET_POST",
    ),
    ("introspection.issuer", "DPOP_INTROSPECTION_ISSUER"),
    (
        "introspection.optional_audience",
        "DPOP_INTROSPECTION_OPTIONAL_AUDIENCE",
    ),
    (
        "introspection.cache_seconds",
        "DPOP_INTROSPECTION_CACHE_SECONDS",
    ),
    (
        "introspection.insecure_http",
        "DPOP_INTROSPECTION_INSECURE_HTTP",
    ),
    ("http.timeout_seconds", "DPOP_HTTP_TIMEOUT_SECONDS"),
    ("http.proxy", "DPOP_HTTP_PROXY"),
    ("http.roots_file", "DPOP_HTTP_ROOTS_FILE"),
    ("start_timeout_seconds", "DPOP_START_TIMEOUT_SECONDS"),
    ("algorithms", "DPOP_ALGORITHMS"),
    ("freshness", "DPOP_FRESHNESS"),
    (
        "freshness.max_age_seconds",
        "DPOP_FRESHNESS_MAX_AGE_SECONDS",
    ),
    ("freshness.leeway_seconds", "DPOP_FRESHNESS_LEEWAY_SECONDS"),
    (
        "freshness.nonce_period_seconds",
        "DPOP_FRESHNESS_NONCE_PERIOD_SECONDS",
    ),
    (
        "freshness.nonce_instead_of_iat",
        "DPOP_FRESHNESS_NONCE_INSTEAD_OF_IAT",
    ),
    ("nonces", "DPOP_NONCES"),
    ("nonces.env", "DPOP_NONCE_SECRETS"),
    ("nonces.file", "DPOP_NONCE_SECRETS_FILE"),
    (
        "insecure_one_use_per_node",
        "DPOP_INSECURE_ONE_USE_PER_NODE",
    ),
    ("replay_memory_limit", "DPOP_REPLAY_MEMORY_LIMIT"),
    ("redis.url", "DPOP_REDIS_URL"),
    ("redis.sentinels", "DPOP_REDIS_SENTINELS"),
    ("redis.primary", "DPOP_REDIS_PRIMARY"),
    ("redis.user", "DPOP_REDIS_USER"),
    ("redis.password.env", "DPOP_REDIS_PASSWORD"),
    ("redis.password.file", "DPOP_REDIS_PASSWORD_FILE"),
    ("redis.prefix", "DPOP_REDIS_PREFIX"),
    ("redis.roots_file", "DPOP_REDIS_ROOTS_FILE"),
    ("redis.insecure_plaintext", "DPOP_REDIS_INSECURE_PLAINTEXT"),
    (
        "redis.insecure_node_memory",
        "DPOP_REDIS_INSECURE_NODE_MEMORY",
    ),
    ("allow_bearer", "DPOP_ALLOW_BEARER"),
    ("insecure_unchecked_cnf", "DPOP_INSECURE_UNCHECKED_CNF"),
    ("realm", "DPOP_REALM"),
    ("scope", "DPOP_SCOPE"),
    ("resource_metadata", "DPOP_RESOURCE_METADATA"),
];

/// What the variables of this crate begin with.
pub(crate) const PREFIX: &str = "DPOP_";

/// The variable of the tool `dpop`, which a developer's shell may export to a service, too.
const OF_THE_TOOL: &str = "DPOP_CLIENT_SECRET";

/// The tree of these variables, in which a secret is a reference to its variable, and the secrets.
pub(crate) fn read(
    given: &[(String, Zeroizing<String>)],
) -> Result<(Node, Secrets), SettingsError> {
    for (name, value) in given {
        if name == OF_THE_TOOL {
            continue;
        }
        if !VARIABLES.iter().any(|(_, known)| known == name) {
            let mut known = VARIABLES.iter().map(|(_, known)| *known);
            return Err(error(name, &unknown("variable", name, &mut known)));
        }
        // A secret that was not injected must not switch a check off.
        if value.trim().is_empty() {
            return Err(error(name, "is empty"));
        }
    }
    let (mut settings, mut secrets) = (Vec::new(), Secrets::default());
    for (path, variable) in VARIABLES {
        let Some((_, value)) = given.iter().rfind(|(name, _)| name == variable) else {
            continue;
        };
        let value = if path.rsplit('.').next() == Some("env") {
            secrets.hold(variable, value);
            Node::Text((*variable).to_owned())
        } else {
            Node::Word(value.to_string())
        };
        if let Err(other) = insert(&mut settings, path, value) {
            let problem = format!("must not be set together with {other}");
            return Err(error(variable, &problem));
        }
    }
    Ok((Node::Table(settings), secrets))
}

/// Adds a value to the tree, or returns the variable that contradicts it.
fn insert(table: &mut Vec<(String, Node)>, path: &str, value: Node) -> Result<(), &'static str> {
    let mut table = table;
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut so_far = String::new();
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        if !so_far.is_empty() {
            so_far.push('.');
        }
        so_far.push_str(parent);
        let at = table.iter().position(|(known, _)| known == parent);
        let at = at.unwrap_or_else(|| {
            table.push((parent.to_owned(), Node::Table(Vec::new())));
            table.len() - 1
        });
        match &mut table[at].1 {
            Node::Table(inner) => table = inner,
            _ => return Err(variable(&so_far).unwrap_or(PREFIX)),
        }
    }
    // A secret has one place.
    if name == "file" && table.iter().any(|(known, _)| known == "env") {
        return Err(variable(&format!("{parents}.env")).unwrap_or(PREFIX));
    }
    table.push((name.to_owned(), value));
    Ok(())
}

/// The error, with the name of the variable instead of the path.
pub(crate) fn named(fault: Fault) -> SettingsError {
    let mut path = fault.path.as_str();
    // The number of a word in a list.
    if let Some((list, _)) = path.split_once('[') {
        path = list;
    }
    match variable(path) {
        Some(name) => error(name, &fault.problem),
        None => fault.into(),
    }
}

/// The variable of this setting or, if it has none, of the first setting in it.
fn variable(path: &str) -> Option<&'static str> {
    let exact = VARIABLES.iter().find(|(known, _)| *known == path);
    let within = || {
        VARIABLES.iter().find(|(known, _)| {
            known
                .strip_prefix(path)
                .is_some_and(|rest| rest.starts_with('.'))
        })
    };
    exact.or_else(within).map(|(_, name)| *name)
}

fn error(setting: &str, problem: &str) -> SettingsError {
    SettingsError {
        setting: setting.to_owned(),
        problem: problem.to_owned(),
    }
}
