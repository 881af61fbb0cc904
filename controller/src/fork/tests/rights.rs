use super::*;

fn gains(baseline: &Value, patched: &Value) -> Option<String> {
    match copy_of(&pod(baseline), &pod(patched), &json!({})) {
        Ok(_) => None,
        Err(Refusal::Gains(what)) => Some(what),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn a_patch_adds_no_right_that_the_baseline_has_not() {
    let container = |more: Value| json!({"containers": [app(&more)]});
    let secure = |context: Value| container(json!({"securityContext": context}));
    for (patched, what) in [
        (json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}), "Secret s"),
        (json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}), "ConfigMap c"),
        (json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "p"}}]}), "claim p"),
        (json!({"volumes": [{"name": "v", "hostPath": {"path": "/etc"}}]}), "host path /etc"),
        (json!({"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}]}), "Secret s"),
        (
            json!({"volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"audience": "bank", "path": "t"}}]}}]}),
            "token for bank",
        ),
        (json!({"volumes": [{"name": "v", "csi": {"driver": "d"}}]}), "volume v"),
        (json!({"imagePullSecrets": [{"name": "s"}]}), "Secret s"),
        (
            container(json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]})),
            "Secret s",
        ),
        (container(json!({"envFrom": [{"secretRef": {"name": "s"}}]})), "Secret s"),
        (container(json!({"envFrom": [{"configMapRef": {"name": "c"}}]})), "ConfigMap c"),
        (container(json!({"ports": [{"containerPort": 80, "hostPort": 80}]})), "host port 80"),
        (json!({"serviceAccountName": "admin"}), "service account admin"),
        (json!({"hostPID": true}), "hostPID"),
        (json!({"nodeName": "n1"}), "node n1"),
        (json!({"runtimeClassName": "fast"}), "runtime class fast"),
        (json!({"securityContext": {"sysctls": [{"name": "a", "value": "1"}]}}), "sysctl a=1"),
        (json!({"securityContext": {"fsGroup": 7}}), "group 7"),
        (json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}), "appArmorProfile"),
        (secure(json!({"privileged": true})), "privileged container app"),
        (secure(json!({"capabilities": {"add": ["NET_ADMIN"]}})), "capability NET_ADMIN"),
        (secure(json!({"procMount": "Unmasked"})), "procMount"),
    ] {
        let said = gains(&json!({}), &patched);
        assert!(said.as_ref().is_some_and(|said| said.contains(what)), "{patched}: {said:?}");
        if patched.get("hostPID").is_none() {
            assert_eq!(gains(&patched, &patched), None, "what the baseline has: {patched}");
        }
        // Without its own account a pod has the namespace's.
        if patched.get("serviceAccountName").is_none() {
            assert_eq!(gains(&patched, &json!({})), None, "what is taken away: {patched}");
        }
    }
}

#[test]
fn a_patch_takes_no_restriction_away() {
    let secure = |context: Value| json!({"containers": [app(&json!({"securityContext": context}))]});
    let strict = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"}});
    let without = |field: &str| {
        let mut loose = strict.clone();
        loose.as_object_mut().expect("an object").remove(field);
        secure(loose)
    };
    for (field, what) in [
        ("allowPrivilegeEscalation", "allowPrivilegeEscalation"),
        ("runAsNonRoot", "user root"),
        ("capabilities", "capability ALL"),
        ("seccompProfile", "seccompProfile"),
    ] {
        let said = gains(&secure(strict.clone()), &without(field));
        assert!(said.as_ref().is_some_and(|said| said.contains(what)), "{field}: {said:?}");
        assert_eq!(gains(&without(field), &secure(strict.clone())), None);
    }
    let said = gains(&json!({"automountServiceAccountToken": false}), &json!({}));
    assert!(said.is_some_and(|said| said.contains("automountServiceAccountToken")));
}

#[test]
fn a_new_services_template_names_what_it_wants_and_has_no_privilege() {
    let fork: Fork =
        serde_json::from_value(json!({"name": "new", "template": {}, "services": ["new"]})).expect("a fork");
    let make = |spec: &Value| copy::make(maker(&fork), pod(spec), None, &Selectors::default(), false);
    make(
        &json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}, {"name": "w", "configMap": {"name": "c"}}]}),
    )
    .expect("names");
    for spec in [
        json!({"serviceAccountName": "admin"}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        json!({"containers": [app(&json!({"securityContext": {"privileged": true}}))]}),
    ] {
        assert!(matches!(make(&spec), Err(Refusal::Gains(_))), "{spec}");
    }
    let empty = copy::make(maker(&fork), json!({}), None, &Selectors::default(), false);
    assert_eq!(empty.expect_err("nothing in it").reason(), "NoTemplate");
}
