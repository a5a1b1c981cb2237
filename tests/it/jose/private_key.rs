//! Deterministic signatures, and private RSA numbers.

use common::base64url;
use num_bigint::BigUint;
use serde_json::{Value, json};
use tower_dpop::jose::{SigningKey, SigningKeyError};

use super::keys::{RSA_2048, decode_member, hex, private_jwk};

/// C-30: an ECDSA nonce is computed from the key and the message, never from randomness. The vectors are
/// those of RFC 6979 appendices A.2.5 to A.2.7 and RFC 8032 section 7.1.
#[test]
fn signatures_are_deterministic() {
    for (name, jwk, message, signature) in [
        (
            "P-256, sample",
            ec_jwk(
                "P-256",
                "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721",
                "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6",
                "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
            ),
            &b"sample"[..],
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716\
             F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
        ),
        (
            "P-256, test",
            ec_jwk(
                "P-256",
                "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721",
                "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6",
                "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299",
            ),
            b"test",
            "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367\
             019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
        ),
        (
            "P-384, sample",
            ec_jwk(
                "P-384",
                "6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D8\
                 96D5724E4C70A825F872C9EA60D2EDF5",
                "EC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64\
                 DEF8F0EA9055866064A254515480BC13",
                "8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1\
                 288B231C3AE0D4FE7344FD2533264720",
            ),
            b"sample",
            "94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C\
             81A648152E44ACF96E36DD1E80FABE46\
             99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94F\
             A329C145786E679E7B82C71A38628AC8",
        ),
        (
            "P-521, sample",
            ec_jwk(
                "P-521",
                "00FAD06DAA62BA3B25D2FB40133DA757205DE67F5BB0018FEE8C86E1B68C7E75\
                 CAA896EB32F1F47C70855836A6D16FCC1466F6D8FBEC67DB89EC0C08B0E996B8\
                 3538",
                "01894550D0785932E00EAA23B694F213F8C3121F86DC97A04E5A7167DB4E5BCD\
                 371123D46E45DB6B5D5370A7F20FB633155D38FFA16D2BD761DCAC474B9A2F50\
                 23A4",
                "00493101C962CD4D2FDDF782285E64584139C2F91B47F87FF82354D6630F746A\
                 28A0DB25741B5B34A828008B22ACC23F924FAAFBD4D33F81EA66956DFEAA2BFD\
                 FCF5",
            ),
            b"sample",
            "00C328FAFCBD79DD77850370C46325D987CB525569FB63C5D3BC53950E6D4C5F\
             174E25A1EE9017B5D450606ADD152B534931D7D4E8455CC91F9B15BF05EC36E3\
             77FA\
             00617CCE7CF5064806C467F678D3B4080D6F1CC50AF26CA209417308281B68AF\
             282623EAA63E5B5C0723D8B8C37FF0777B1A20F8CCB1DCCC43997F1EE0E44DA4\
             A67A",
        ),
        (
            "Ed25519, test 1",
            okp_jwk(
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            ),
            b"",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155\
             5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "Ed25519, test 2",
            okp_jwk(
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            ),
            b"\x72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "Ed25519, test 3",
            okp_jwk(
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            ),
            b"\xaf\x82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
             18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let key = SigningKey::from_jwk(&jwk.to_string()).unwrap();
        for _ in 0..2 {
            assert_eq!(key.sign_now(message).unwrap(), hex(signature), "{name}");
        }
    }
}

fn ec_jwk(crv: &str, d: &str, x: &str, y: &str) -> Value {
    let [d, x, y] = [d, x, y].map(|number| base64url(hex(number)));
    json!({ "kty": "EC", "crv": crv, "d": d, "x": x, "y": y })
}

fn okp_jwk(d: &str, x: &str) -> Value {
    let [d, x] = [d, x].map(|number| base64url(hex(number)));
    json!({ "kty": "OKP", "crv": "Ed25519", "d": d, "x": x })
}

/// All numbers match each other: only q is not a prime.
#[test]
fn rejects_an_rsa_key_whose_q_is_not_a_prime() {
    let rsa = private_jwk(&SigningKey::from_pkcs8_pem(RSA_2048).unwrap());
    let number = |name: &str| BigUint::from_bytes_be(&decode_member(&rsa, name));
    let one = BigUint::from(1_u8);
    let (p, e) = (number("p"), number("e"));
    let mut q = number("q") + 2_u8;
    let (phi, d) = loop {
        let phi = (&p - &one) * (&q - &one);
        match e.modinv(&phi) {
            Some(d) => break (phi, d),
            None => q += 2_u8,
        }
    };
    assert_eq!((&d * &e) % phi, one);
    let mut composite = rsa.clone();
    for (name, value) in [
        ("n", &p * &q),
        ("q", q.clone()),
        ("dp", &d % (&p - &one)),
        ("dq", &d % (&q - &one)),
        ("qi", q.modinv(&p).unwrap()),
        ("d", d),
    ] {
        composite[name] = json!(base64url(value.to_bytes_be()));
    }
    let read = SigningKey::from_jwk(&composite.to_string());
    assert_eq!(read.unwrap_err(), SigningKeyError::Mismatch);
}
