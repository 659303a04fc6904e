# The smallest configuration that shows everything: it needs no cloud, no credentials and no provider to download.
# terraform_data is built into Terraform; each resource just keeps its input in the state.

terraform {
  required_version = ">= 1.4"
}

resource "terraform_data" "network" {
  input = {
    name = var.name
    cidr = var.cidr
  }
}

resource "terraform_data" "subnet" {
  for_each = toset(var.zones)

  input = {
    network = terraform_data.network.output.name
    zone    = each.key
    cidr    = cidrsubnet(var.cidr, 8, index(var.zones, each.key))
  }
}

# Replaced whenever a subnet changes.
resource "terraform_data" "gateway" {
  triggers_replace = [for subnet in terraform_data.subnet : subnet.output.cidr]

  input = "gateway of ${terraform_data.network.output.name}"
}
