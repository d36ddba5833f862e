//! Programs that write, through the kernel with its writeback cache: editors, archivers, databases, version control.

use std::fs;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::{Mount, PATIENT, errno, registry};
use crate::fs::Selection;
use crate::fs::tests::test_mount::Setup;

/// A writable mount.
fn writable() -> Option<Mount> {
    Mount::new(registry(), Setup::writable(), PATIENT)
}

/// Runs a script in a directory of the mount and returns its output.
fn run(directory: &Path, script: &str) -> String {
    let mut shell = Command::new("timeout");
    shell.args(["--signal", "KILL", "120", "bash", "-euo", "pipefail", "-c", script]).current_dir(directory);
    let home = directory.parent().unwrap();
    shell.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("HOME", home).env("TMPDIR", std::env::temp_dir());
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{script}\n{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

/// Whether a program is installed; says loudly if not.
fn has(program: &str) -> bool {
    let there = Command::new("which").arg(program).output().is_ok_and(|output| output.status.success());
    if !there {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "skipped: {program} is missing");
        eprintln!("SKIPPED, {program} is missing");
    }
    there
}

#[test]
fn files_are_written_and_read_back_through_the_kernel() {
    let Some(mount) = writable() else { return };
    let tag = mount.path("team/app/v1");
    fs::write(tag.join("new.txt"), "new").unwrap();
    fs::write(tag.join("a.txt"), "changed").unwrap();
    fs::OpenOptions::new().append(true).open(tag.join("dir/b.txt")).unwrap().write_all(b" and here").unwrap();
    assert_eq!(fs::read_to_string(tag.join("new.txt")).unwrap(), "new");
    assert_eq!(fs::read_to_string(tag.join("a.txt")).unwrap(), "changed");
    assert_eq!(fs::read_to_string(tag.join("dir/b.txt")).unwrap(), "there and here");
    assert_eq!(mount.list("team/app/v1"), ["a.txt", "dir", "empty", "new.txt"]);
    assert_eq!(fs::read_to_string(mount.path("team/app/v2/a.txt")).unwrap(), "again");
}

#[test]
fn a_tag_is_made_by_mkdir_and_filled_by_cp() {
    let Some(mount) = writable() else { return };
    let source = tempfile::tempdir().unwrap();
    run(source.path(), "mkdir -p data/sub; echo one > data/one; echo two > data/sub/two; ln -s one data/link; chmod 600 data/one");
    run(mount.directory.path(), &format!("cp -a {0}/data team/app/new; mkdir tools; cp -r {0}/data tools/v1", source.path().display()));
    assert_eq!(mount.list("team/app"), ["new", "v1", "v2"]);
    for tag in ["team/app/new", "tools/v1"] {
        run(mount.directory.path(), &format!("diff -r {}/data {tag}", source.path().display()));
    }
    assert_eq!(fs::metadata(mount.path("team/app/new/one")).unwrap().mode(), 0o100_600);
    assert_eq!(fs::read_link(mount.path("team/app/new/link")).unwrap(), Path::new("one"));
}

#[test]
fn editors_replace_a_file_by_renaming() {
    let Some(mount) = writable() else { return };
    let tag = mount.path("team/app/v1");
    run(&tag, "sed -i s/hello/goodbye/ a.txt; test \"$(cat a.txt)\" = goodbye; test \"$(ls -A | tr '\\n' ' ')\" = 'a.txt dir empty '");
    if has("vim") {
        run(
            &tag,
            "vim -u NONE -es -c 'set backup writebackup backupcopy=no' -c '%s/goodbye/vim/' -c wq a.txt; test \"$(cat a.txt)\" = vim",
        );
        run(&tag, "vim -u NONE -es -c 'set backupcopy=yes' -c '%s/vim/again/' -c wq a.txt; test \"$(cat a.txt)\" = again");
    }
}

#[test]
fn rsync_and_tar_write_a_tree_and_find_it_unchanged() {
    let Some(mount) = writable() else { return };
    let source = tempfile::tempdir().unwrap();
    run(
        source.path(),
        "mkdir -p t/a/b; for n in $(seq 200); do echo $n > t/a/file$n; done; ln t/a/file1 t/a/b/hard; ln -s ../file2 t/a/b/soft; \
         truncate -s 1M t/sparse; head -c 300000 /dev/urandom > t/random; touch -d '2001-02-03 04:05:06.789' t/a/file3; tar cf t.tar t",
    );
    let (tag, source) = (mount.path("team/app/v1"), source.path().display().to_string());
    run(
        &tag,
        &format!(
            "tar xf {source}/t.tar; diff -r {source}/t t; test $(stat -c %h t/a/file1) = 2; test $(stat -c %Y t/a/file3) = $(stat -c %Y {source}/t/a/file3)"
        ),
    );
    if has("rsync") {
        run(&tag, &format!("rsync -aH {source}/t/ r/; diff -r {source}/t r; test -z \"$(rsync -aHni {source}/t/ r/)\""));
    }
    run(&tag, "find t -delete; test ! -e t");
}

#[test]
fn git_clones_commits_and_finds_nothing_changed() {
    let Some(mount) = writable() else { return };
    if !has("git") {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let identity = "-c user.name=A -c user.email=a@b.c -c init.defaultBranch=main";
    run(
        source.path(),
        &format!(
            "git {identity} init -q repo; cd repo; for n in $(seq 100); do echo $n > f$n; done; git add .; git {identity} commit -qm one"
        ),
    );
    let script = format!(
        "git clone -q {0}/repo clone; cd clone; test -z \"$(git status --porcelain)\"; echo more >> f1; git {identity} commit -qam two; \
         git fsck --strict; git gc -q; git log --oneline | wc -l; test -z \"$(git status --porcelain)\"",
        source.path().display()
    );
    assert_eq!(run(&mount.path("team/app/v1"), &script).trim(), "2");
}

#[test]
fn a_database_works_in_a_staged_tag() {
    let Some(mount) = writable() else { return };
    if !has("sqlite3") {
        return;
    }
    for mode in ["delete", "wal", "truncate"] {
        let script = format!(
            "sqlite3 {mode}.db 'pragma journal_mode={mode}; create table t(n); with recursive c(n) as (values(1) union all select n+1 from c where n<5000) \
             insert into t select n from c;' >/dev/null; sqlite3 {mode}.db 'update t set n=n+1 where n%2; delete from t where n>4000;'; \
             sqlite3 {mode}.db 'pragma integrity_check; select count(*) from t;'"
        );
        assert_eq!(run(&mount.path("team/app/v1"), &script).trim(), "ok\n4000", "{mode}");
    }
}

#[test]
fn writes_through_a_mapping_reach_the_file() {
    let Some(mount) = writable() else { return };
    let script = "python3 - <<'END'\nimport mmap\nfor name, size in (('mapped', 100000), ('a.txt', 5)):\n  mode = 'w+b' if name == 'mapped' else 'r+b'\n  f = open(name, mode)\n  f.truncate(size)\n  m = mmap.mmap(f.fileno(), size)\n  m[0:3] = b'abc'\n  m[size - 1:size] = b'z'\n  m.close()\n  f.close()\n  d = open(name, 'rb').read()\n  assert len(d) == size and d[:3] == b'abc' and d[-1:] == b'z', d[:10]\nEND";
    run(&mount.path("team/app/v1"), script);
    let staged = mount.runtime.block_on(mount.mount.fs.differences(&Selection::All)).unwrap();
    assert_eq!(staged[0].1.len(), 2, "{staged:?}");
}

#[test]
fn two_programs_append_to_one_file_and_lose_no_line() {
    let Some(mount) = writable() else { return };
    let script = "for n in $(seq 500); do echo a$n; done >> log & for n in $(seq 500); do echo b$n >> log; done; wait; wc -l < log; sort -u log | wc -l";
    assert_eq!(run(&mount.path("team/app/v1"), script), "1000\n1000\n");
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let Some(mount) = writable() else { return };
    for name in ["a.txt", "new"] {
        let path = mount.path("team/app/v1").join(name);
        let mut file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        file.write_all(b"jello").unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.write_all(b" and more").unwrap();
        file.sync_all().unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "jello and more");
        assert!(!path.exists());
    }
}

#[test]
fn fallocate_and_hole_punching_work_and_holes_are_found() {
    let Some(mount) = writable() else { return };
    let path = mount.path("team/app/v1/sparse");
    let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write_all_at(b"data", 4 << 20).unwrap();
    let found = run(
        path.parent().unwrap(),
        "python3 - <<'END'\nimport os\nf = os.open('sparse', os.O_RDONLY)\nprint(os.lseek(f, 0, os.SEEK_DATA), os.lseek(f, 0, os.SEEK_HOLE))\nprint(os.lseek(f, 4 << 20, os.SEEK_HOLE) <= (4 << 20) + 65536)\nEND",
    );
    assert_eq!(found, "4194304 0\nTrue\n", "what was written just now is no hole");
    run(path.parent().unwrap(), "fallocate -l 1M full; test $(stat -c %s full) = 1048576; test $(stat -c %b full) -ge 2048");
    run(path.parent().unwrap(), "fallocate -n -o 1M -l 1M full; test $(stat -c %s full) = 1048576");
    run(
        path.parent().unwrap(),
        "head -c 1M /dev/zero | tr '\\0' x > x; fallocate -p -o 64K -l 64K x; test $(stat -c %s x) = 1048576; test $(tr -d '\\0' < x | wc -c) = 983040; \
         fallocate -z -o 256K -l 64K x; test $(tr -d '\\0' < x | wc -c) = 917504",
    );
    run(path.parent().unwrap(), "cp --sparse=auto sparse copy; cmp sparse copy; test $(stat -c %b copy) -le 1024");
}

#[test]
fn links_and_file_types_behave_as_on_a_disk() {
    let Some(mount) = writable() else { return };
    let tag = mount.path("team/app/v1");
    fs::hard_link(tag.join("a.txt"), tag.join("hard")).unwrap();
    fs::write(tag.join("hard"), "one file").unwrap();
    assert_eq!(fs::read_to_string(tag.join("a.txt")).unwrap(), "one file");
    let (one, other) = (fs::metadata(tag.join("a.txt")).unwrap(), fs::metadata(tag.join("hard")).unwrap());
    assert_eq!((one.ino(), one.nlink()), (other.ino(), 2));
    fs::remove_file(tag.join("a.txt")).unwrap();
    assert_eq!(fs::metadata(tag.join("hard")).unwrap().nlink(), 1);
    symlink("/nowhere", tag.join("soft")).unwrap();
    assert_eq!(fs::read_link(tag.join("soft")).unwrap(), Path::new("/nowhere"));
    let script = "mkfifo pipe; (echo through > pipe &); test \"$(cat pipe)\" = through; umask 027; touch f; mkdir d; stat -c %a f d; \
                  chmod 4750 f; stat -c %a f; touch -d '1969-12-31 23:59:58.5 UTC' f; stat -c %.Y f; mkdir -p d/e/f; stat -c %h d; chown 1 f; stat -c %a f";
    assert_eq!(run(&tag, script), "640\n750\n4750\n-1.500000000\n3\n750\n");
}

#[test]
fn a_listing_is_right_after_every_change() {
    let Some(mount) = writable() else { return };
    let tag = mount.path("team/app/v1");
    run(
        &tag,
        "ls | tr '\\n' ' '; touch b; ls | tr '\\n' ' '; mv b c; ls | tr '\\n' ' '; rm c; ls | tr '\\n' ' '; mkdir m; for n in $(seq 1000); do : > m/$n; done; \
         test $(ls m | wc -l) = 1000; rm m/1*; test $(ls m | wc -l) = 888; rm -r m; test \"$(ls | tr '\\n' ' ')\" = 'a.txt dir empty '",
    );
}

#[test]
fn refused_writes_have_telling_errors() {
    let Some(mount) = writable() else { return };
    let digest = fs::read_to_string(mount.path("team/app/.oci/tags/v1/digest")).unwrap();
    let digest = format!("team/app/@{}", digest.trim().replace(':', "-"));
    let (rofs, perm, invalid, cross, exists) = (Some(30), Some(1), Some(22), Some(18), Some(17));
    assert_eq!(errno(fs::write(mount.path(&digest).join("a.txt"), "x")), rofs);
    assert_eq!(errno(fs::write(mount.path(&digest).join("new"), "x")), rofs);
    assert_eq!(errno(fs::write(mount.path("team/app/.oci/new"), "x")), rofs);
    assert_eq!(errno(fs::create_dir(mount.path("team/app/.oci/new"))), rofs);
    assert_eq!(errno(fs::write(mount.path("file"), "x")), perm);
    assert_eq!(errno(fs::write(mount.path("team/app/file"), "x")), perm);
    assert_eq!(errno(symlink("x", mount.path("team/app/soft"))), perm);
    assert_eq!(errno(fs::create_dir(mount.path("Upper"))), invalid);
    assert_eq!(errno(fs::create_dir(mount.path("team/app/v1"))), exists);
    assert_eq!(errno(fs::write(mount.path("team/app/v1/.wh.x"), "x")), invalid);
    assert_eq!(errno(fs::rename(mount.path("team/app/v1/a.txt"), mount.path("team/app/v2/x"))), cross);
    assert_eq!(errno(fs::hard_link(mount.path("team/app/v1/a.txt"), mount.path("team/app/v2/x"))), cross);
    assert_eq!(errno(fs::remove_dir(mount.path("team/app/v1"))), perm);
    let long = mount.path("team/app/v1").join("n".repeat(256));
    assert_eq!(errno(fs::write(&long, "x")), Some(36));
    let exclusive = fs::OpenOptions::new().write(true).create_new(true).open(mount.path("team/app/v1/a.txt"));
    assert_eq!(errno(exclusive), exists);
}

#[test]
fn a_read_only_mount_reports_itself_as_such() {
    let Some(mount) = Mount::new(registry(), Setup::default(), PATIENT) else { return };
    assert_eq!(errno(fs::write(mount.path("team/app/v1/a.txt"), "x")), Some(30));
    assert_eq!(errno(fs::create_dir(mount.path("new"))), Some(30));
}

#[test]
fn mv_renames_a_tag_with_a_shell_inside() {
    let Some(mount) = writable() else { return };
    let script = "cd v1; echo more > new; mv ../v1 ../v3; test \"$(cat new)\" = more; echo again >> new; test \"$(cat a.txt)\" = hello; cat ../v3/new; ls ..";
    assert_eq!(run(&mount.path("team/app"), script), "more\nagain\nv2\nv3\n");
}

#[test]
fn discarded_edits_show_upstream_again_and_open_files_keep_theirs() {
    let Some(mount) = writable() else { return };
    let tag = mount.path("team/app/v1");
    fs::write(tag.join("a.txt"), "changed and longer").unwrap();
    fs::write(tag.join("new"), "new").unwrap();
    fs::remove_file(tag.join("empty")).unwrap();
    let mut open = fs::File::open(tag.join("a.txt")).unwrap();
    assert_eq!(mount.list("team/app/v1"), ["a.txt", "dir", "new"]);
    mount.runtime.block_on(mount.mount.fs.discard(&Selection::Path("team/app/v1".to_owned()))).unwrap();
    mount.flush_notices();
    assert_eq!(mount.list("team/app/v1"), ["a.txt", "dir", "empty"]);
    assert_eq!(fs::read_to_string(tag.join("a.txt")).unwrap(), "hello");
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "changed and longer");
    fs::write(tag.join("a.txt"), "once more").unwrap();
    assert_eq!(fs::read_to_string(tag.join("a.txt")).unwrap(), "once more");
}

#[test]
fn a_tag_that_another_mount_edits_is_busy() {
    let Some(mount) = writable() else { return };
    let other = mount.mount.beside(Setup::writable());
    mount.runtime.block_on(other.put("team/app/v1/a.txt", "theirs"));
    assert_eq!(errno(fs::write(mount.path("team/app/v1/a.txt"), "x")), Some(16));
    assert_eq!(errno(fs::create_dir(mount.path("team/app/v1/new"))), Some(16));
    assert_eq!(fs::read_to_string(mount.path("team/app/v1/a.txt")).unwrap(), "hello");
}

#[test]
fn a_write_only_file_is_written_in_pieces() {
    let Some(mount) = writable() else { return };
    let path = mount.path("team/app/v1/a.txt");
    let file = fs::OpenOptions::new().write(true).custom_flags(0).open(&path).unwrap();
    file.write_all_at(b"u", 1).unwrap();
    drop(file);
    assert_eq!(fs::read_to_string(&path).unwrap(), "hullo");
}
