output "greeting" {
  description = "What the demo shows at its end."
  value       = "Hello from ${terraform_data.network.output.name}: ${length(var.zones)} subnets behind the ${terraform_data.gateway.output}."
}

output "subnets" {
  description = "The address range of each zone's subnet."
  value       = { for zone, subnet in terraform_data.subnet : zone => subnet.output.cidr }
}
