use super::*;

const EXAMPLE: &str = r#"
apiVersion: sidetrack.dev/v1alpha1
kind: RouteTable
services:
- name: shop/orders
  addresses: ["10.96.0.10:80", "10.99.0.11:8080", "[fd00::11]:8080"]
  routes:
  - key: pr-1234
    endpoints: ["10.99.0.12:8080", "[fd00::12]:8080"]
  - key: 0099            # a key may look like a number
    fail: "its fork is not ready"
- name: shop/cart
  addresses: ["10.96.0.11:80"]
"#;

fn said(text: &str) -> Vec<String> {
    let mistakes = parse(text).expect_err("not valid");
    DocumentError::Invalid { path: "r.yaml".into(), mistakes }.to_string().lines().map(str::to_owned).collect()
}

fn service(rest: &str) -> Vec<String> {
    said(&format!("apiVersion: sidetrack.dev/v1alpha1\nkind: RouteTable\nservices:\n- name: a\n{rest}"))
}

#[test]
fn the_example_is_read() {
    let table = parse(EXAMPLE).expect("valid");
    let orders = &table.services()[0];
    assert_eq!((orders.name.as_str(), orders.addresses.len(), table.routes()), ("shop/orders", 3, 2));
    assert_eq!(orders.routes[1].key, "0099");
    assert_eq!(orders.routes[1].to, To::Fail { reason: "its fork is not ready".into() });
    assert!(table.services()[1].routes.is_empty());
}

#[test]
fn a_table_may_be_empty_but_a_file_may_not() {
    let empty = "apiVersion: sidetrack.dev/v1alpha1\nkind: RouteTable\nservices: []\n";
    assert_eq!(parse(empty).expect("valid").services(), []);
    assert_eq!(said(""), ["r.yaml:1:1: nothing stands here, expected an object"]);
}

#[test]
fn another_kind_is_said_before_its_fields_are() {
    let other = said("apiVersion: v1\nkind: ConfigMap\ndata: {}\n");
    assert_eq!(
        other,
        [
            "r.yaml:1:13: apiVersion: \"v1\", expected \"sidetrack.dev/v1alpha1\"",
            "r.yaml:2:7: kind: \"ConfigMap\", expected \"RouteTable\"",
        ]
    );
}

#[test]
fn a_mistake_in_form_says_line_field_and_what_was_expected() {
    assert_eq!(
        service("  adresses: []\n"),
        ["r.yaml:5:3: services[0].adresses: unknown field `adresses`, expected one of name, addresses, routes"]
    );
    assert_eq!(service("  addresses: 10.0.0.1:80\n"), ["r.yaml:5:14: services[0].addresses: expected a list"]);
    assert_eq!(service("  addresses: [{}]\n"), ["r.yaml:5:15: services[0].addresses[0]: expected a text"]);
    assert_eq!(
        service("  addresses: [\"10.0.0.1:80\"]\n  routes: [{key: k}]\n"),
        [
            "r.yaml:6:12: services[0].routes[0]: no place to go: expected either `endpoints: [\"ip:port\"]` or `fail: \"why\"`"
        ]
    );
    assert_eq!(
        service("  addresses: [\"10.0.0.1:80\"]\n  routes: [{key: k, fail: x, endpoints: []}]\n"),
        [concat!(
            "r.yaml:6:12: services[0].routes[0]: both `endpoints` and `fail`: ",
            "expected either `endpoints: [\"ip:port\"]` or `fail: \"why\"`"
        )]
    );
}

#[test]
fn a_mistake_in_meaning_says_line_field_and_what_was_expected() {
    assert_eq!(
        service("  addresses: [\"orders:80\", \"10.0.0.1\"]\n"),
        [
            "r.yaml:5:15: services[0].addresses[0]: \"orders:80\", expected \"ip:port\" or \"[ipv6]:port\", with numbers and no name",
            "r.yaml:5:28: services[0].addresses[1]: \"10.0.0.1\", expected \"ip:port\" or \"[ipv6]:port\", with numbers and no name",
        ]
    );
    assert_eq!(
        service("  addresses: [\"10.0.0.1:80\"]\n  routes:\n  - key: a b\n    fail: x\n"),
        [
            "r.yaml:7:10: services[0].routes[0].key: \"a b\" is no sandbox key: expected 1 to 63 characters of A-Z a-z 0-9 . _ -"
        ]
    );
    let twice = service("  addresses: [\"10.0.0.1:80\"]\n- name: b\n  addresses:\n  - \"10.0.0.1:80\"\n");
    assert_eq!(
        twice,
        [concat!(
            "r.yaml:8:5: services[1].addresses[0]: 10.0.0.1:80 belongs to service \"a\" already: ",
            "an address can belong to one service only"
        )]
    );
}

#[test]
fn a_second_object_in_the_file_is_a_mistake() {
    let two = said(&format!("{EXAMPLE}---\n{EXAMPLE}"));
    assert_eq!(two.len(), 1, "{two:?}");
}

#[test]
fn what_becomes_of_a_request_whose_fork_cannot_be_reached_is_said_by_its_route() {
    let routes = |said: &str| format!("  addresses: [\"10.0.0.1:80\"]\n  routes: [{{key: k, {said}}}]\n");
    let table = |said: &str| {
        parse(&format!("apiVersion: sidetrack.dev/v1alpha1\nkind: RouteTable\nservices:\n- name: a\n{}", routes(said)))
    };
    let falls_back = |said: &str| match &table(said).expect("valid").services()[0].routes[0].to {
        To::Fork { on_unreachable, .. } => *on_unreachable,
        To::Fail { .. } => panic!("a fork"),
    };
    assert_eq!(falls_back("endpoints: [\"10.0.0.2:80\"]"), OnUnreachable::Fail);
    assert_eq!(falls_back("endpoints: [\"10.0.0.2:80\"], onUnreachable: Fail"), OnUnreachable::Fail);
    assert_eq!(falls_back("endpoints: [\"10.0.0.2:80\"], onUnreachable: Baseline"), OnUnreachable::Baseline);
    assert_eq!(
        service(&routes("endpoints: [\"10.0.0.2:80\"], onUnreachable: baseline")),
        [concat!(
            "r.yaml:6:64: services[0].routes[0].onUnreachable: \"baseline\", ",
            "expected \"Fail\" (the default) or \"Baseline\""
        )]
    );
    assert_eq!(
        service(&routes("fail: x, onUnreachable: Baseline")),
        [concat!(
            "r.yaml:6:45: services[0].routes[0].onUnreachable: \"Baseline\" beside `fail`, ",
            "which refuses every request: leave one of the two out"
        )]
    );
}
