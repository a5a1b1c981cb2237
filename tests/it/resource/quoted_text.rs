//! Text in challenges.

use tower_dpop::resource::QuotedText;

/// a configuration error, so nothing is escaped at run time.
#[test]
fn rejects_text_that_cannot_be_quoted() {
    for bad in ["a\"b", "a\\b", "a\r\nb", "ä", "\u{0}"] {
        assert!(bad.parse::<QuotedText>().is_err(), "{bad:?}");
    }
    let text: QuotedText = "a b".parse().unwrap();
    assert_eq!((text.as_str(), &*text.to_string()), ("a b", "a b"));
}
