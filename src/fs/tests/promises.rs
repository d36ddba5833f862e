//! Every sentence of SEMANTICS.md, and every case of other tools in tests/CASES.md, names the tests that prove it; they must exist.

use std::collections::BTreeSet;
use std::path::Path;

fn test_names(directory: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            test_names(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut lines = text.lines().map(str::trim);
            while let Some(line) = lines.next() {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    let function = lines.by_ref().find(|line| line.contains("fn "));
                    let name = function.and_then(|line| line.split("fn ").nth(1)?.split('(').next().map(str::to_owned));
                    names.extend(name);
                }
            }
        }
    }
}

/// The lines of a document that need proof, selected by how they begin; each must name existing tests.
fn proven(document: &str, is_claim: impl Fn(&str) -> bool) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    test_names(&root.join("src"), &mut tests);
    test_names(&root.join("tests"), &mut tests);
    let text = std::fs::read_to_string(root.join(document)).unwrap();
    let claims: Vec<String> = text.lines().filter(|line| is_claim(line)).map(str::to_owned).collect();
    for line in &claims {
        let cited: Vec<&str> =
            line.split('`').skip(1).step_by(2).filter(|word| word.len() > 3 && word.contains('_') && !word.contains('.')).collect();
        assert!(!cited.is_empty(), "no test proves: {line}");
        for test in cited {
            assert!(tests.contains(test), "there is no test `{test}`, named by: {line}");
        }
    }
    claims
}

#[test]
fn every_promise_names_tests_that_exist() {
    let promises = proven("src/fs/SEMANTICS.md", |line| line.starts_with("- "));
    assert!(promises.len() > 20, "SEMANTICS.md was not read");
}

#[test]
fn every_case_of_other_tools_names_tests_that_exist() {
    let number = |line: &str| line.split_once(". ").and_then(|(number, _)| number.parse::<u32>().ok());
    let cases: Vec<u32> = proven("tests/CASES.md", |line| number(line).is_some()).iter().filter_map(|line| number(line)).collect();
    let wanted: Vec<u32> = (1..=91).collect();
    assert_eq!(cases, wanted);
}
