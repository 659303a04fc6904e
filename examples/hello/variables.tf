variable "name" {
  description = "What the network is called."
  type        = string
  default     = "hello"
}

variable "cidr" {
  description = "The network's address range."
  type        = string
  default     = "10.0.0.0/16"

  validation {
    condition     = can(cidrsubnet(var.cidr, 8, 0))
    error_message = "cidr must be an address range with room for subnets, such as 10.0.0.0/16."
  }
}

variable "zones" {
  description = "A subnet is made in each."
  type        = list(string)
  default     = ["a", "b", "c"]
}
