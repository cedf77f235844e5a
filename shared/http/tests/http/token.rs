//! The token and its file.

use std::{fs, os::unix::fs::PermissionsExt};

use sheaf_http::{Access, Token, TokenError};

#[test]
fn a_token_is_made_once_and_kept_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let made = Token::load_or_create(&path).unwrap().expose();
    assert_eq!(made.len(), 43);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(Token::load_or_create(&path).unwrap().expose(), made);
    assert_eq!(Token::load(&path).unwrap().expose(), made);
    assert_ne!(Token::random().expose(), made);
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    Token::load_or_create(&path).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = Token::load_or_create(&path).unwrap_err();
        assert!(matches!(&error, TokenError::NotPrivate { mode: found, .. } if *found == mode));
        assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
    }
}

#[test]
fn a_file_without_a_token_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    Token::load_or_create(&path).unwrap();
    for text in ["", "short", &"A".repeat(44), &"A".repeat(10_000)] {
        fs::write(&path, text).unwrap();
        assert!(matches!(Token::load_or_create(&path), Err(TokenError::NoToken { .. })), "{text:.50}");
    }
    assert!(matches!(Token::load(&directory.path().join("none")), Err(TokenError::Io { .. })));
    assert!(matches!(Token::load_or_create(&directory.path().join("no/such")), Err(TokenError::Io { .. })));
}

#[test]
fn nothing_prints_it() {
    let token = Token::random();
    assert_eq!(format!("{token:?}"), "Token(…)");
    assert!(!format!("{:?}", Access::Token(token.clone())).contains(&token.expose()));
}
