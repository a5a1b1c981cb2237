//! `dpop keygen`.

use tower_dpop::Algorithm;
use tower_dpop::jose::SigningKey;

use crate::Folder;

#[test]
fn writes_a_key_that_only_its_owner_can_read() {
    let folder = Folder::new("keygen");
    let jkt = folder.dpop(&["keygen"], "").output().to_owned();
    let key = SigningKey::from_pkcs8_pem(&folder.read("key.pem")).unwrap();
    assert_eq!(key.thumbprint().to_string(), jkt);
    assert_eq!(key.algorithm(), Algorithm::Es256);
    #[cfg(unix)]
    assert_mode(&folder, "key.pem", 0o600);
}

#[cfg(unix)]
#[track_caller]
fn assert_mode(folder: &Folder, name: &str, mode: u32) {
    use std::os::unix::fs::MetadataExt;

    let found = folder.path(name).metadata().unwrap().mode() & 0o777;
    assert_eq!(found, mode, "{found:o}");
}

#[test]
fn keeps_an_existing_file_unless_forced() {
    let folder = Folder::new("keygen-force");
    folder.write("key.pem", "an old file");
    let kept = folder.dpop(&["keygen"], "");
    kept.assert_fails(3, "key.pem: exists already; --force replaces it");
    assert_eq!(folder.read("key.pem"), "an old file");

    let forced = folder.dpop(&["keygen", "--force"], "");
    let key = SigningKey::from_pkcs8_pem(&folder.read("key.pem")).unwrap();
    assert_eq!(key.thumbprint().to_string(), forced.output());
    // The old file could be read by others. So could the new one, if it had been written into the old.
    #[cfg(unix)]
    assert_mode(&folder, "key.pem", 0o600);
    let names: Vec<_> = std::fs::read_dir(&folder.0).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn writes_each_kind_of_key_in_either_format() {
    let folder = Folder::new("keygen-kinds");
    for alg in [
        "ES256", "ES384", "ES512", "Ed25519", "EdDSA", "PS256", "RS256",
    ] {
        let jwk = format!("{alg}.jwk");
        let jkt = folder.dpop(
            &["keygen", "--alg", alg, "--format", "jwk", "--out", &jwk],
            "",
        );
        let key = SigningKey::from_jwk(&folder.read(&jwk)).unwrap();
        assert_eq!(key.thumbprint().to_string(), jkt.output(), "{alg}");
        assert_eq!(key.algorithm().name(), alg);

        let pem = format!("{alg}.pem");
        let jkt = folder.dpop(&["keygen", "--alg", alg, "--out", &pem], "");
        let key = SigningKey::from_pkcs8_pem(&folder.read(&pem)).unwrap();
        assert_eq!(key.thumbprint().to_string(), jkt.output(), "{alg}");
    }
}

#[test]
fn prints_the_key_only_if_asked() {
    let folder = Folder::new("keygen-stdout");
    let printed = folder.dpop(&["keygen", "--out", "-"], "");
    let key = SigningKey::from_pkcs8_pem(printed.output()).unwrap();
    assert_eq!(printed.stderr.trim_end(), key.thumbprint().to_string());
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 0);
}

#[test]
fn reports_unusable_arguments_and_paths() {
    let folder = Folder::new("keygen-errors");
    folder
        .dpop(&["keygen", "--alg", "HS256"], "")
        .assert_fails(2, "not a supported signature algorithm");
    folder
        .dpop(&["keygen", "--out", "no/such/folder/key.pem"], "")
        .assert_fails(3, "no/such/folder/key.pem: No such file or directory");
    folder
        .dpop(
            &["keygen", "--force", "--out", "no/such/folder/key.pem"],
            "",
        )
        .assert_fails(3, "no/such/folder/key.pem: No such file or directory");
}
