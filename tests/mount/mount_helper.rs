//! mount(8) and fstab: the program as `mount.ocifs`, the type `fuse.ocifs`, `-o` options, `/dev/fd/N`.

use crate::support::layouts::fixtures;
use crate::support::mounting::{Home, text};
use crate::support::shell::Shell;
use crate::support::skip::{Need, lacks};
use std::ffi::OsString;
use std::process::Output;

const NEEDS: [Need; 3] = [Need::Fuse, Need::Root, Need::Tool("unshare")];

/// Runs a script in its own mount namespace, where /usr/sbin (the only place where mount(8) looks for helpers) contains the program as `ocifs` and
/// `mount.ocifs`, and `mount.fuse` if installed. `$M` is unmounted at the end; `$KEEP` are options that keep cache and state in the test's own
/// home.
fn in_namespace(script: &str) -> Output {
    let (shell, home) = (Shell::new(), Home::new());
    let whole = format!(
        r#"mkdir sbin mnt; export M=$PWD/mnt
        cp "$OCIFS" sbin/ocifs; ln -s ocifs sbin/mount.ocifs
        if [ -e /usr/sbin/mount.fuse3 ]; then cp /usr/sbin/mount.fuse3 sbin/; ln -s mount.fuse3 sbin/mount.fuse; fi
        mount --bind sbin /usr/sbin
        trap 'if findmnt "$M" >/dev/null; then umount -l "$M"; fi' EXIT
        {script}"#
    );
    let keep = format!("cache-dir={0}/cache,state_dir={0}/state", home.path("").display().to_string().trim_end_matches('/'));
    let variables = [
        ("SCRIPT", OsString::from(whole)),
        ("OCIFS", env!("CARGO_BIN_EXE_ocifs").into()),
        ("LAYOUT", fixtures().join("image-umoci/layout").into()),
        ("KEEP", keep.into()),
    ];
    shell.attempt(r#"exec unshare --mount bash -euo pipefail -c "$SCRIPT""#, &variables)
}

fn prints(script: &str) -> String {
    let output = in_namespace(script);
    assert!(output.status.success(), "{script}\n{}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn mount_with_the_options_of_an_fstab_line_mounts_and_umount_unmounts() {
    if lacks(&NEEDS) {
        return;
    }
    let script = r#"echo "oci:$LAYOUT $M ocifs ro,_netdev,noauto,nofail,x-systemd.automount,x-systemd.requires=a.service,tag-ttl=5m,$KEEP 0 0" >fstab
        mount --fstab fstab "$M"; cat "$M/l1/touch"; findmnt -no FSTYPE,OPTIONS "$M"; umount "$M"; ls "$M""#;
    let printed = prints(script);
    assert!(printed.starts_with("same content\nfuse.ocifs ro,nosuid,nodev,relatime"), "{printed}");
    assert_eq!(printed.lines().count(), 2, "nothing is left after umount: {printed}");
}

#[test]
fn an_fstab_entry_for_users_is_noexec() {
    if lacks(&NEEDS) {
        return;
    }
    let options = prints(r#"mount -t ocifs "oci:$LAYOUT" "$M" -o "user,$KEEP"; findmnt -no OPTIONS "$M"; umount "$M""#);
    assert!(options.split([',', '\n']).any(|option| option == "noexec"), "{options}");
    let options = prints(r#"mount -t ocifs "oci:$LAYOUT" "$M" -o "user,exec,$KEEP"; findmnt -no OPTIONS "$M"; umount "$M""#);
    assert!(!options.contains("noexec"), "{options}");
}

#[test]
fn the_type_fuse_ocifs_works_even_with_a_device_from_mount_fuse() {
    if lacks(&[NEEDS.as_slice(), &[Need::Tool("mount.fuse3")]].concat()) {
        return;
    }
    let printed = prints(
        r#"mount -t fuse.ocifs "oci:$LAYOUT:l1" "$M" -o "$KEEP"; cat "$M/touch"; findmnt -no FSTYPE "$M"; umount "$M"
        mount -t fuse.ocifs "oci:$LAYOUT:l1" "$M" -o "drop_privileges,$KEEP"; cat "$M/touch"; findmnt -no FSTYPE "$M"; umount "$M""#,
    );
    assert_eq!(printed, "same content\nfuse.ocifs\n".repeat(2));
}

#[test]
fn mount_reports_why_it_failed() {
    if lacks(&NEEDS) {
        return;
    }
    let output = in_namespace(r#"mount -t ocifs oci:/nowhere/at/all "$M" -o "$KEEP""#);
    assert_eq!(output.status.code(), Some(10), "{}", text(&output));
    assert!(text(&output).contains("/nowhere/at/all"), "{}", text(&output));
    let output = in_namespace(r#"mount -t ocifs "oci:$LAYOUT" "$M" -o "colour=blue,$KEEP""#);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("`colour`"), "{}", text(&output));
}

#[test]
fn mount_options_are_the_flags_by_name() {
    if lacks(&[Need::Fuse, Need::Root]) {
        return;
    }
    let home = Home::new();
    let layout = format!("oci:{}:l1", fixtures().join("image-umoci/layout").display());
    let mount = home.mount(&layout, &["-o", "uid=1234,gid=5678,file_mode=0440", "-o", "dir-mode=0550,ro,nosuid"]);
    let shell = Shell::new();
    assert_eq!(shell.at(mount.root(), "stat -c %u:%g:%a $M/touch $M/etc"), "1234:5678:440\n1234:5678:550\n");
    mount.unmount();
}
