//! Damaged databases, databases of a newer version, and files that are not databases.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rand::{RngExt, SeedableRng};

use super::*;

/// A closed upper with some of everything.
fn filled() -> (tempfile::TempDir, PathBuf) {
    let (directory, uppers, upper) = begin();
    for number in 0..30_u32 {
        let (key, _) = add(&upper, format!("name-{number}").as_bytes(), b"bytes");
        upper.change(|change| change.put_xattr(key, b"user.x", Some(&[7; 500]))).unwrap();
    }
    let fill = |change: &mut Change<'_>| {
        (0..300_u32).try_for_each(|number| {
            change.add_node(&Node { content: Content::Tree(tree_node(number)), ..file(Content::None) })?;
            change.put_name(3, format!("gone-{number}").as_bytes(), Named::Whiteout)
        })
    };
    upper.change(fill).unwrap();
    upper.change(|change| change.add_node(&Node { content: Content::Tree(tree_node(1)), ..file(Content::None) })).unwrap();
    let frozen = upper.freeze().unwrap();
    frozen.keep_sha256(&[(1, [1; 32])]).unwrap();
    drop(frozen);
    drop((upper, uppers));
    let database = directory.path().join("uppers").join(tag_key("v1").directory_name()).join("upper.db");
    (directory, database)
}

/// Uses all of an upper. Errors are fine, panics are not.
fn use_all(upper: &Upper) -> Result<(), Error> {
    let mut cookie = 0;
    while let Some(last) = upper.rows().names(0, cookie, 50)?.last() {
        upper.rows().name(0, &last.name)?;
        // A damaged index may return any order, but must not loop forever.
        if last.cookie <= cookie {
            break;
        }
        cookie = last.cookie;
    }
    for (key, node) in upper.rows().nodes(None, 1000)? {
        upper.rows().xattrs(key)?;
        if let Content::Data(id) = node.content {
            let data = upper.rows().open_data(id)?;
            let end = data.length()?;
            data.segment(0, end)?;
            data.write_at(1, b"x")?;
        }
    }
    upper.journal()?;
    upper.change(|change| {
        let key = change.add_node(&file(Content::None))?;
        change.put_name(0, b"new", Named::Node(key))?;
        change.drop_node(STAGED + 5)
    })?;
    let frozen = upper.freeze()?;
    frozen.sha256(1)?;
    let references: Vec<_> = frozen.rows().nodes(None, 1000)?.into_iter().map(|(key, _)| (key, tree_node(1))).collect();
    commit(upper, frozen, digest(2), &mut references.into_iter(), &|_| false)?;
    upper.sync()
}

#[test]
fn a_database_with_any_bytes_wrong_is_an_error_or_works_and_never_panics() {
    let (directory, database) = filled();
    let whole = std::fs::read(&database).unwrap();
    let files = data_files(directory.path());
    let contents: Vec<_> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let mut random = rand::rngs::StdRng::seed_from_u64(5);
    let (mut refused, mut opened) = (0, 0);
    for round in 0..100 {
        let mut bytes = whole.clone();
        let at = random.random_range(0..bytes.len());
        match round % 5 {
            0 => bytes[at] ^= random.random_range(1..=255_u8),
            1 => bytes.truncate(at),
            2 => bytes[at / 4096 * 4096..][..4096].fill(0),
            3 => bytes[random.random_range(0..100)] = random.random(),
            _ => {
                let end = (at + 64).min(bytes.len());
                random.fill(&mut bytes[at..end]);
            }
        }
        std::fs::write(&database, &bytes).unwrap();
        match open(directory.path()).find(&tag_key("v1")) {
            Ok(upper) => {
                opened += 1;
                // The result may be wrong, but there is no panic.
                if let Err(error) = use_all(&upper.unwrap()) {
                    assert!(!error.message.is_empty());
                }
            }
            Err(error) => {
                refused += 1;
                assert!(matches!(error.kind, ErrorKind::Integrity | ErrorKind::Unsupported), "{error}");
                assert!(error.message.contains("ocifs discard"), "{error}");
                assert_eq!(std::fs::read(&database).unwrap(), bytes, "a damaged database is left as it is");
                assert_eq!(data_files(directory.path()), files, "and so are the bytes");
            }
        }
        // Restored for the next round.
        let _ = std::fs::remove_file(super::super::schema::log_path(&database));
        for (path, bytes) in files.iter().zip(&contents) {
            std::fs::write(path, bytes).unwrap();
        }
        for path in data_files(directory.path()).iter().filter(|path| !files.contains(path)) {
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(refused > 10 && opened > 5, "{refused} {opened}");
}

#[test]
fn a_missing_empty_or_foreign_database_is_damaged_and_nothing_is_deleted() {
    let (directory, database) = filled();
    let files = data_files(directory.path());
    let refuse = |what: &str| {
        let error = open(directory.path()).find(&tag_key("v1")).err().unwrap();
        assert_eq!(error.kind, ErrorKind::Integrity, "{what}: {error}");
        let data = database.parent().unwrap().join("data");
        assert!(error.message.contains(data.to_str().unwrap()) && error.message.contains("ocifs discard"), "{error}");
        assert_eq!(data_files(directory.path()), files);
    };
    std::fs::write(&database, b"").unwrap();
    refuse("empty");
    std::fs::write(&database, [7; 5000]).unwrap();
    refuse("no database");
    std::fs::remove_file(&database).unwrap();
    refuse("missing");
    rusqlite::Connection::open(&database).unwrap().execute_batch("CREATE TABLE other (x)").unwrap();
    refuse("another program's");
    assert!(open(directory.path()).give_up(&tag_key("v1")).unwrap());
    assert!(data_files(directory.path()).is_empty());
}

#[test]
fn a_schema_with_extra_objects_is_not_executed() {
    let (directory, database) = filled();
    let connection = rusqlite::Connection::open(&database).unwrap();
    connection.execute_batch("CREATE TRIGGER evil AFTER INSERT ON nodes BEGIN DELETE FROM names; END").unwrap();
    drop(connection);
    assert_eq!(open(directory.path()).find(&tag_key("v1")).err().unwrap().kind, ErrorKind::Integrity);
}

#[test]
fn a_database_of_a_newer_version_is_left_alone_with_one_clear_message() {
    let (directory, database) = filled();
    let set = |version: i32| {
        let file = std::fs::OpenOptions::new().write(true).open(&database).unwrap();
        file.write_all_at(&version.to_be_bytes(), 60).unwrap();
    };
    set(3);
    let before = std::fs::read(&database).unwrap();
    let error = open(directory.path()).find(&tag_key("v1")).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    for part in [database.to_str().unwrap(), "format 3", "up to 2", "ocifs discard"] {
        assert!(error.message.contains(part), "{error}");
    }
    assert_eq!(std::fs::read(&database).unwrap(), before);
    set(2);
    again(&open(directory.path()));
}

#[test]
fn impossible_values_are_reported_as_damage() {
    let (directory, database) = filled();
    for (statement, restore) in [
        ("UPDATE nodes SET kind = 99 WHERE key = (SELECT max(key) FROM nodes)", "UPDATE nodes SET kind = 1"),
        ("UPDATE nodes SET mode = -1", "UPDATE nodes SET mode = 420"),
        ("UPDATE nodes SET parent = -1", "UPDATE nodes SET parent = 0"),
        ("UPDATE nodes SET manifest = 'sha256:x' WHERE manifest IS NOT NULL", ""),
    ] {
        let run = |statement: &str| rusqlite::Connection::open(&database).unwrap().execute_batch(statement).unwrap();
        run(statement);
        let error = again(&open(directory.path())).rows().nodes(None, 1000).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Integrity, "{statement}: {error}");
        run(restore);
    }
    rusqlite::Connection::open(&database).unwrap().execute_batch("DELETE FROM upper").unwrap();
    assert_eq!(open(directory.path()).find(&tag_key("v1")).err().unwrap().kind, ErrorKind::Integrity);
}

#[test]
fn a_damaged_database_of_an_older_version_is_left_alone() {
    let (directory, database) = filled();
    let run = |statements: &str| rusqlite::Connection::open(&database).unwrap().execute_batch(statements).unwrap();
    // Claims version 1 but has version 2 tables.
    run("PRAGMA user_version = 1");
    let before = std::fs::read(&database).unwrap();
    assert_eq!(open(directory.path()).find(&tag_key("v1")).err().unwrap().kind, ErrorKind::Integrity);
    assert_eq!(std::fs::read(&database).unwrap(), before);
}
