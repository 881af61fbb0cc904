use super::*;

#[test]
fn a_copy_is_the_pod_template_alone_with_what_the_fork_says() {
    let template = json!({"metadata": {"labels": {"app": "orders", "team.example/x": "y"},
            "annotations": {"note": "kept", "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}, "creationTimestamp": null},
        "spec": {"containers": [app(&json!({"env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}))],
            "initContainers": [{"name": "side", "image": "side:1", "restartPolicy": "Always"}],
            "priorityClassName": "high", "priority": 1000, "preemptionPolicy": "PreemptLowerPriority", "fieldOfAYoungerVersion": {"a": 1}}});
    let baseline = workload(&template);
    let more = json!({"images": {"app": "orders:pr", "side": "side:pr"}, "env": {"app": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}]}});
    let copy = copy_of(&baseline.template, &baseline.template, &more).expect("a copy");
    let spec = &copy.template["spec"];
    let own = |more: Value| {
        let mut all = more.as_array().cloned().unwrap_or_default();
        all.extend([
            json!({"name": "SIDETRACK_SANDBOX", "value": "pr"}),
            json!({"name": "SIDETRACK_KEY", "value": "pr-1"}),
        ]);
        all
    };
    assert_eq!(spec["containers"][0]["image"], "orders:pr");
    let env = own(json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "C", "value": "3"}]));
    assert_eq!(spec["containers"][0]["env"], json!(env));
    assert_eq!(
        (&spec["initContainers"][0]["image"], &spec["initContainers"][0]["env"]),
        (&json!("side:pr"), &json!(own(json!([]))))
    );
    assert_eq!(spec["fieldOfAYoungerVersion"], json!({"a": 1}));
    assert!(
        ["priority", "priorityClassName", "preemptionPolicy"].iter().all(|field| spec.get(field).is_none()),
        "{spec:#}"
    );
    assert_eq!(copy.template["metadata"]["annotations"], json!({"note": "kept"}));
    assert_eq!(copy.hazards, [""; 0]);
    let fork = fork(&more);
    let with_class =
        copy::make(maker(&fork), baseline.template.clone(), Some(&baseline.template), &Selectors::default(), true);
    assert_eq!(with_class.expect("a copy").template["spec"]["priorityClassName"], "sidetrack-forks");
}

#[test]
fn a_name_that_no_container_has_is_an_error_that_lists_the_names() {
    let template = pod(&json!({"initContainers": [{"name": "migrate", "image": "m"}]}));
    for (more, field) in [
        (json!({"images": {"ap": "x"}}), "images"),
        (json!({"env": {"ap": [{"name": "A", "value": "1"}]}}), "env"),
        (json!({"patch": {"spec": {"containers": [{"name": "ap", "image": "x"}]}}}), "patch.spec.containers"),
        (json!({"patch": {"spec": {"initContainers": [{"name": "app"}]}}}), "patch.spec.initContainers"),
    ] {
        let refusal = copy_of(&template, &template, &more).expect_err("an unknown name");
        assert_eq!(refusal.reason(), "UnknownContainer");
        let said = refusal.to_string();
        assert!(said.starts_with(field) && said.ends_with("there are app, migrate"), "{said}");
    }
    let known = json!({"images": {"migrate": "x"}, "patch": {"spec": {"containers": [{"$patch": "replace"}, {"name": "app"}]}}});
    copy_of(&template, &template, &known).expect("all are known");
}

#[test]
fn what_is_sidetracks_is_not_the_authors() {
    let template = pod(&json!({}));
    let refusal =
        copy_of(&template, &template, &json!({"patch": {"metadata": {"labels": {"sidetrack.dev/fork": "x"}}}}));
    assert_eq!(refusal.expect_err("a name of Sidetrack's").reason(), "PatchRefused");
}

#[test]
fn claims_become_empty_volumes_unless_the_fork_says_otherwise() {
    let volumes = json!([{"name": "a", "persistentVolumeClaim": {"claimName": "a"}}, {"name": "b", "persistentVolumeClaim": {"claimName": "b"}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "d", "configMap": {"name": "d"}}, {"name": "e", "nfs": {"server": "s", "path": "/"}}]);
    let template = pod(
        &json!({"volumes": volumes, "containers": [app(&json!({"volumeMounts": [{"name": "a", "mountPath": "/a"}, {"name": "c", "mountPath": "/c"}]}))]}),
    );
    let copy = copy_of(&template, &template, &json!({"volumes": {"b": "Share", "c": "ReadOnly"}})).expect("a copy");
    let made = &copy.template["spec"]["volumes"];
    assert_eq!(made[0], json!({"name": "a", "emptyDir": {}}));
    assert_eq!(made[1], volumes[1]);
    assert_eq!(made[2], json!({"name": "c", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}));
    assert_eq!((&made[3], &made[4]), (&volumes[3], &volumes[4]));
    let mounts = &copy.template["spec"]["containers"][0]["volumeMounts"];
    assert_eq!(mounts, &json!([{"name": "a", "mountPath": "/a"}, {"name": "c", "mountPath": "/c", "readOnly": true}]));
    assert_eq!(copy.hazards.len(), 3, "{:?}", copy.hazards);
    let unknown = copy_of(&template, &template, &json!({"volumes": {"d": "Share"}})).expect_err("no claim");
    assert_eq!(unknown.to_string(), "volumes names d: of persistent ones there are a, b, c");
}

#[test]
fn a_device_has_no_empty_volume_in_its_place() {
    let template = pod(&json!({"volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "a"}}],
        "containers": [app(&json!({"volumeDevices": [{"name": "a", "devicePath": "/dev/a"}]}))]}));
    assert_eq!(copy_of(&template, &template, &json!({})).expect_err("a device").reason(), "VolumeIsDevice");
    copy_of(&template, &template, &json!({"volumes": {"a": "Share"}})).expect("it is shared");
}

#[test]
fn the_claims_of_a_stateful_set_are_volumes_of_its_template() {
    let spec = json!({"template": pod(&json!({"volumes": [{"name": "data", "emptyDir": {}}]})), "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        "ordinals": {"start": 3}, "selector": {"matchLabels": {"app": "orders"}}});
    let baseline = object("StatefulSet", &spec).expect("a baseline");
    let claim = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-orders-3"}}]);
    assert_eq!(baseline.template["spec"]["volumes"], claim);
    let copy = copy_of(&baseline.template, &baseline.template, &json!({})).expect("a copy");
    assert_eq!(copy.template["spec"]["volumes"], json!([{"name": "data", "emptyDir": {}}]));
    let copy = copy_of(&baseline.template, &baseline.template, &json!({"volumes": {"data": "Share"}})).expect("a copy");
    assert_eq!(copy.template["spec"]["volumes"], claim);
}

#[test]
fn what_is_its_nodes_a_fork_has_not() {
    let template = pod(
        &json!({"nodeName": "n1", "hostPID": true, "containers": [app(&json!({"ports": [{"containerPort": 80, "hostPort": 8080}]}))]}),
    );
    let copy = copy_of(&template, &template, &json!({})).expect("a copy");
    assert_eq!(copy.template["spec"].get("nodeName"), None);
    assert_eq!(copy.template["spec"]["containers"][0]["ports"], json!([{"containerPort": 80}]));
    assert!(copy.hazards.iter().any(|it| it.contains("8080")) && copy.hazards.iter().any(|it| it.contains("hostPID")));
    let template = pod(&json!({"hostNetwork": true}));
    assert_eq!(copy_of(&template, &template, &json!({})), Err(Refusal::HostNetwork));
}

#[test]
fn init_containers_that_end_are_a_hazard_or_left_out() {
    let template = pod(
        &json!({"initContainers": [{"name": "migrate", "image": "m"}, {"name": "side", "image": "s", "restartPolicy": "Always"}]}),
    );
    let kept = copy_of(&template, &template, &json!({})).expect("a copy");
    assert!(kept.hazards[0].contains("migrate") && !kept.hazards[0].contains("side"), "{:?}", kept.hazards);
    let skipped = copy_of(&template, &template, &json!({"initContainers": "Skip"})).expect("a copy");
    let names: Vec<_> = skipped.template["spec"]["initContainers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it["name"].as_str())
        .collect();
    assert_eq!((names, skipped.hazards.len()), (vec!["side"], 0));
}

#[test]
fn the_patch_of_a_rollout_is_merged_by_name_and_may_only_set() {
    let template = pod(
        &json!({"containers": [app(&json!({"env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]}))],
        "volumes": [{"name": "v", "emptyDir": {}}]}),
    );
    let patch = json!({"patch": {"metadata": {"labels": {"tier": "web"}}, "spec": {"terminationGracePeriodSeconds": 5,
        "containers": [{"name": "app", "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]}], "volumes": [{"name": "w", "emptyDir": {}}]}}});
    let merged = patch::merge(&fork(&patch), &template).expect("a patch that sets");
    assert_eq!(merged["metadata"]["labels"], json!({"app": "orders", "tier": "web"}));
    let container = &merged["spec"]["containers"][0];
    assert_eq!((&container["image"], &container["ports"]), (&json!("orders:1"), &json!([{"containerPort": 80}])));
    assert_eq!(container["env"], json!([{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]));
    assert_eq!(merged["spec"]["containers"].as_array().map(Vec::len), Some(1));
    assert_eq!(merged["spec"]["volumes"].as_array().map(Vec::len), Some(2));
    for word in [json!({"$patch": "delete", "name": "app"}), json!({"name": "app", "env": null})] {
        let refused = patch::merge(&fork(&json!({"patch": {"spec": {"containers": [word]}}})), &template);
        assert!(matches!(refused, Err(Refusal::Directive(_))), "{refused:?}");
    }
}

#[test]
fn a_rollout_that_refers_to_a_deployment_says_so() {
    let refusal =
        object("Rollout", &json!({"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "base"}}));
    assert_eq!(
        refusal.expect_err("no template").to_string(),
        "Rollout orders has its pod template from Deployment base: fork that"
    );
}
