//! What becomes of the baseline's volumes: a fork damages nothing that the baseline keeps.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sidetrack_objects::sandbox::Volume;

use super::{
    Refusal,
    template::{containers, each_container, list, list_mut, name},
};

/// Sources whose content is the pod's own, or cannot be written.
const OWN: &[&str] =
    &["emptyDir", "configMap", "secret", "projected", "downwardAPI", "ephemeral", "image", "persistentVolumeClaim"];

/// Puts empty volumes in the place of claims, or shares them as the fork says; what its author should know.
pub fn change(template: &mut Value, wished: &BTreeMap<String, Volume>) -> Result<Vec<String>, Refusal> {
    let claims: Vec<String> = list(&template["spec"], "volumes")
        .filter(|volume| volume.get("persistentVolumeClaim").is_some_and(Value::is_object))
        .map(|volume| name(volume).to_owned())
        .collect();
    if let Some(unknown) = wished.keys().find(|name| !claims.contains(name)) {
        return Err(Refusal::UnknownVolume { name: unknown.clone(), known: claims });
    }
    let devices: Vec<&str> = containers(template).flat_map(|it| list(it, "volumeDevices")).map(name).collect();
    if let Some(device) = claims.iter().find(|it| !wished.contains_key(*it) && devices.contains(&it.as_str())) {
        return Err(Refusal::Device(device.clone()));
    }
    let mut hazards = Vec::new();
    for volume in list_mut(&mut template["spec"], "volumes") {
        let named = name(volume).to_owned();
        if !claims.contains(&named) {
            let kind = volume.as_object().into_iter().flat_map(|it| it.keys()).find(|key| *key != "name");
            if let Some(kind) = kind.filter(|kind| !OWN.contains(&kind.as_str())) {
                hazards.push(format!("volume {named} ({kind}) may be the baseline's, too"));
            }
            continue;
        }
        match wished.get(&named) {
            None => {
                *volume = json!({"name": named, "emptyDir": {}});
                hazards.push(format!("volume {named} is empty: the baseline's claim is not used"));
            }
            Some(Volume::Share) => hazards.push(format!("volume {named} is the baseline's: the fork writes to it")),
            Some(Volume::ReadOnly) => volume["persistentVolumeClaim"]["readOnly"] = json!(true),
        }
    }
    each_container(template, |container| {
        for mount in list_mut(container, "volumeMounts") {
            if wished.get(name(mount)) == Some(&Volume::ReadOnly) {
                mount["readOnly"] = json!(true);
            }
        }
    });
    Ok(hazards)
}
